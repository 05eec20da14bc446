
/* exp(-i * scale) in 1/65535 is number i, two bytes, of the table in model_data. Results are in 1/256. */
static void softmax(const value_t *in, value_t *out, index_t length, offset_t table, uint16_t size)
{
    value_t greatest = in[0];
    uint32_t total = 0;
    for (index_t i = 1; i < length; i++) {
        greatest = in[i] > greatest ? in[i] : greatest;
    }
    for (index_t i = 0; i < length; i++) {
        uint16_t below = (uint16_t)(greatest - in[i]);
        total += below < size ? data_number(table + 2u * below, 2) : 0u;
    }
    total += total == 0;
    for (index_t i = 0; i < length; i++) {
        uint16_t below = (uint16_t)(greatest - in[i]);
        uint32_t share = below < size ? data_number(table + 2u * below, 2) : 0u;
        share = (256u * share + total / 2u) / total;
        out[i] = (value_t)(share < 255u ? share : 255u);
    }
}
