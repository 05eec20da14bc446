
/* sum / count, rounded to the nearest whole number, halves away from 0. */
static int32_t quotient(int32_t sum, uint32_t count)
{
    uint32_t size = (2u * (sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum) + count) / (2u * count);
    return sum < 0 ? -(int32_t)size : (int32_t)size;
}
