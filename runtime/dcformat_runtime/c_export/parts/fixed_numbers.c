/* --- fixed point ---------------------------------------------------------------------------------------------------- */

/* Sums are int32; they are unsigned here because damaged weights may make them overflow. */
typedef int32_t weight_t;
typedef uint32_t sum_t;
typedef int16_t row_weight_t;

/* How a sum becomes a value: times a 15-bit multiplier, divided by 2^(16 + shift), plus `zero`, and limited. */
typedef struct {
    offset_t scales;    /* in model_data, for each row: the multiplier (2 bytes) and the shift (1 byte) */
    uint8_t each_row;   /* 0: all rows have the first one */
    int16_t input_zero; /* what stands for 0 among inputs and results */
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

/* A value less the one that stands for 0. */
static int32_t centered(value_t x, const finish_t *f)
{
    return (int32_t)x - f->input_zero;
}

#define GREATER(a, b) ((int32_t)(a) > (int32_t)(b))

/* sum * multiplier / 2^(16 + shift), rounded; in 32 bits. */
static int32_t scaled(sum_t sum, uint32_t scale)
{
    int32_t multiplier = (int32_t)(scale & 0x7FFFu);
    uint8_t shift = (uint8_t)(scale >> 16 & 31u);
    int32_t high = (int32_t)sum >> 16;
    int32_t low = (int32_t)((sum & 0xFFFFu) * (uint32_t)multiplier >> 16);
    shift = shift > 24 ? 24 : shift;
    return (high * multiplier + low + (int32_t)((1ul << shift) >> 1)) >> shift;
}

static value_t limited(int32_t x, int16_t low, int16_t high)
{
    return (value_t)(x < low ? low : x > high ? high : x);
}

typedef uint32_t scale_t;

static scale_t scale_of(const finish_t *f, uint32_t row)
{
    return data_number(f->scales + (f->each_row ? 3u * row : 0u), 3);
}

static value_t finished(sum_t sum, const finish_t *f, scale_t scale)
{
    return limited(scaled(sum, scale) + f->zero, f->low, f->high);
}
