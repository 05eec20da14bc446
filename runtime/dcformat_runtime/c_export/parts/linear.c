/* --- linear layers -------------------------------------------------------------------------------------------------- */

typedef struct {
    tensor_t weight, bias;
    finish_t finish;
    uint16_t rows;
    index_t columns;
} linear_t;

typedef struct {
    reader_t weight, bias;
    uint32_t start; /* position of the row in the weight */
} linear_state_t;

static void open_linear(linear_state_t *state, const linear_t *l)
{
    state->start = 0;
    open_reader(&state->weight, &l->weight, WEIGHT_MODELS);
    open_reader(&state->bias, &l->bias, BIAS_MODELS);
}

static sum_t row_sum(linear_state_t *state, const linear_t *l, const value_t *in, uint16_t row)
{
    sum_t sum = (sum_t)bias_of(&state->bias, row);
    while (state->weight.position - state->start < l->columns) {
        value_t x = in[state->weight.position - state->start];
        sum = multiply_add(sum, state->weight.weight, CENTERED(x, &l->finish));
        next_entry(&state->weight);
    }
    state->start += l->columns;
    return sum;
}
