
static value_t greatest(const pool_t *p, const value_t *in, span_t rows, span_t columns)
{
    value_t best = in[(index_t)rows.first * p->width + columns.first];
    for (uint16_t y = rows.first; y < rows.end; y++) {
        for (uint16_t x = columns.first; x < columns.end; x++) {
            value_t value = in[(index_t)y * p->width + x];
            best = value > best ? value : best;
        }
    }
    return best;
}
