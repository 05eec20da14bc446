
static void linear_sums(const linear_t *l, const value_t *in, int32_t *out)
{
    linear_state_t state;
    open_linear(&state, l);
    for (uint16_t row = 0; row < l->rows; row++) {
        out[row] = (int32_t)row_sum(&state, l, in, row);
    }
}
