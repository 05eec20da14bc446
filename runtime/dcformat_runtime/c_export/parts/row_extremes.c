
static void row_maxima(const value_t *in, value_t *out, index_t rows, index_t length)
{
    while (rows-- > 0) {
        value_t best = *in;
        for (index_t i = 0; i < length; i++, in++) {
            best = *in > best ? *in : best;
        }
        *out++ = best;
    }
}
