/* --- the bytes of the weights ------------------------------------------------------------------------------------ */

/* Bytes beyond the end are zeros, so damaged numbers never lead out of model_data. */
static uint8_t data_byte(uint32_t at)
{
    return at < MODEL_DATA_SIZE ? FLASH_BYTE(&MODEL_DATA[at]) : (uint8_t)0;
}

static uint32_t data_number(uint32_t at, uint8_t bytes)
{
    uint32_t number = 0;
    while (bytes-- > 0) {
        number = number << 8 | data_byte(at + bytes);
    }
    return number;
}

int model_check(void)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (uint32_t at = 0; at + 4 < MODEL_DATA_SIZE; at++) {
        crc ^= data_byte(at);
        for (uint8_t bit = 0; bit < 8; bit++) {
            crc = (crc & 1u) ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
        }
    }
    return (crc ^ 0xFFFFFFFFu) == data_number(MODEL_DATA_SIZE - 4, 4);
}

/* The layout of a tensor in model_data. */
typedef struct {
    uint32_t elements; /* of the dense tensor */
    offset_t entries;  /* elements that are stored */
    offset_t stream;   /* where the positions and codes of the entries begin and end */
    offset_t end;
    offset_t values;   /* the codebook, or a value for each entry */
    uint16_t codes;    /* size of the codebook; 0: each entry has its own value */
    uint8_t negatives; /* codes below this one stand for negative values */
    uint8_t width;     /* bytes of a value; 0: a value is its code minus `negatives` */
    uint8_t shift;     /* values are multiples of 2^shift */
    uint8_t gap_bits;  /* of a gap symbol; 0: every element is an entry */
    CODER_FIELDS
} tensor_t;
