
static float float_at(uint32_t table, uint32_t index)
{
    uint32_t bits = data_number(table + 4u * index, 4);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
