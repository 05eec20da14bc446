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

typedef uint32_t scale_t;

static scale_t scale_of(const finish_t *f, uint32_t row)
{
    return data_number(f->scales + (f->each_row ? 3u * row : 0u), 3);
}

static value_t finished(sum_t sum, const finish_t *f, scale_t scale)
{
    return limited(scaled(sum, scale) + f->zero, f->low, f->high);
}
