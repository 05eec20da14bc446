
static void linear(const linear_t *l, const value_t *in, value_t *out)
{
    linear_state_t state;
    open_linear(&state, l);
    for (uint16_t row = 0; row < l->rows; row++) {
        out[row] = finished(row_sum(&state, l, in, row), &l->finish, scale_of(&l->finish, row));
    }
}
