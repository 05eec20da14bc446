
static value_t mean_of(const pool_t *p, const value_t *in, span_t rows, span_t columns)
{
    uint32_t count = (uint32_t)rows.counted * columns.counted;
#if FLOATS
    float sum = 0.0f;
#else
    int32_t sum = 0;
#endif
    for (uint16_t y = rows.first; y < rows.end; y++) {
        for (uint16_t x = columns.first; x < columns.end; x++) {
#if FLOATS
            sum += in[(index_t)y * p->width + x];
#else
            sum += (int32_t)in[(index_t)y * p->width + x] - p->zero;
#endif
        }
    }
#if FLOATS
    return sum / (float)count;
#else
    return (value_t)(p->zero + quotient(sum, count));
#endif
}
