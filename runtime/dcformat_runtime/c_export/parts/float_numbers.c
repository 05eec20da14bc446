/* --- float32 -------------------------------------------------------------------------------------------------------- */

typedef float weight_t;
typedef float sum_t;
typedef float row_weight_t;

typedef struct {
    float low, high; /* results are limited to this range */
} finish_t;

typedef uint8_t scale_t; /* not used */

static weight_t value_of(const tensor_t *t, uint32_t index)
{
    uint32_t bits = data_number(t->values + 4u * index, 4);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Products are rounded before they are added, as in the runtime's deterministic mode. */
static sum_t multiply_add(sum_t sum, weight_t weight, value_t x)
{
    float product = weight * x;
    return sum + product;
}

#define CENTERED(x, finish) (x)
#define GREATER(a, b) ((a) > (b))

static scale_t scale_of(const finish_t *f, uint32_t row)
{
    (void)f;
    (void)row;
    return 0;
}

static value_t finished(sum_t sum, const finish_t *f, scale_t scale)
{
    (void)scale;
    sum = sum > f->low ? sum : f->low;
    return sum < f->high ? sum : f->high;
}
