static value_t limited(int32_t x, int16_t low, int16_t high)
{
    return (value_t)(x < low ? low : x > high ? high : x);
}
