
/* A sum of two values, each minus its zero, times a multiplier / 2^shift. */
typedef struct {
    int16_t zero[2], multiplier[2];
    uint8_t shift;
    int16_t out_zero, low, high;
} sum_of_t;

static value_t sum_of(const sum_of_t *s, value_t a, value_t b)
{
    int32_t sum = ((int32_t)a - s->zero[0]) * s->multiplier[0] + ((int32_t)b - s->zero[1]) * s->multiplier[1];
    return limited(((sum + (int32_t)((1ul << s->shift) >> 1)) >> s->shift) + s->out_zero, s->low, s->high);
}
