
/* The sum of a row in float64, in 64 interleaved parts that are added in pairs. */
static double row_total(const float *row, index_t length)
{
    double sums[64] = {0.0};
    for (index_t i = 0; i < length; i++) {
        sums[i % 64] += (double)row[i];
    }
    for (uint8_t half = 32; half > 0; half = (uint8_t)(half / 2)) {
        for (uint8_t i = 0; i < half; i++) {
            sums[i] += sums[i + half];
        }
    }
    return sums[0];
}
