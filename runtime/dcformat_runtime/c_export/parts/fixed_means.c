
/* The mean of each row, in the units of the input. */
static void row_means(const value_t *in, value_t *out, index_t rows, index_t length, value_t zero)
{
    while (rows-- > 0) {
        int32_t sum = 0;
        for (index_t i = 0; i < length; i++) {
            sum += (int32_t)*in++ - zero;
        }
        *out++ = (value_t)(zero + quotient(sum, length));
    }
}
