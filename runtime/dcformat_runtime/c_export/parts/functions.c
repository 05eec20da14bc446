/* --- functions of one number, by the same steps as the runtime's kernels -------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float exponential(float x)
{
    float bounded = x > -87.33654f ? x : -87.33654f;
    float n, r, p, low, product;
    bounded = bounded < 89.0f ? bounded : 89.0f;
    product = bounded * 1.44269504f;
    n = (product + 12582912.0f) - 12582912.0f;
    product = n * 0.693359375f;
    r = bounded - product;
    product = n * -2.12194440e-4f;
    r = r - product;
    product = 1.9875691500e-4f * r;
    p = product + 1.3981999507e-3f;
    product = p * r;
    p = product + 8.3334519073e-3f;
    product = p * r;
    p = product + 4.1665795894e-2f;
    product = p * r;
    p = product + 1.6666665459e-1f;
    product = p * r;
    p = product + 5.0000001201e-1f;
    product = r * r;
    product = p * product;
    p = (product + r) + 1.0f;
    low = n < 127.0f ? n : 127.0f;
    p = p * from_bits((uint32_t)((int32_t)low + 127) << 23) * (n > 127.0f ? 2.0f : 1.0f);
    p = x >= -87.33654f ? p : 0.0f;
    return x == x ? p : x;
}
