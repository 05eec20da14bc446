/* --- fixed point ---------------------------------------------------------------------------------------------------- */

/* Sums are int32; they are unsigned here because damaged weights may make them overflow. */
typedef int32_t weight_t;
typedef uint32_t sum_t;
typedef int16_t row_weight_t;

/* The steps from a sum to a value: times a 15-bit multiplier, divided by 2^(16 + shift), plus `zero`, and limited. */
typedef struct {
    offset_t scales;    /* in model_data, for each row: the multiplier (2 bytes) and the shift (1 byte) */
    uint8_t each_row;   /* 0: all rows have the first one */
    int16_t input_zero; /* the values that stand for 0 among inputs and results */
    int16_t zero;
    int16_t low, high;
} finish_t;

static weight_t value_of(const tensor_t *t, uint32_t index)
{
    uint32_t number;
    if (t->width == 0) {
        return (int32_t)index - t->negatives;
    }
    number = data_number(t->values + t->width * index, t->width);
    if (t->width == 1) {
        number = (number ^ 0x80u) - 0x80u;
    } else if (t->width == 2) {
        number = (number ^ 0x8000u) - 0x8000u;
    }
    return (int32_t)(number << t->shift);
}

static sum_t multiply_add(sum_t sum, weight_t weight, int32_t x)
{
    return sum + (uint32_t)weight * (uint32_t)x;
}

/* A value minus the one that stands for 0. */
#define CENTERED(x, finish) ((int32_t)(x) - (finish)->input_zero)

#define GREATER(a, b) ((int32_t)(a) > (int32_t)(b))
