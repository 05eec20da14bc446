/* Runs the tests of a model under simavr, and counts the cycles of a run on the first test's input. */

#define MODEL_TEST_NO_MAIN
#include "test_model.c"

#if STATIC_INPUT
#define INPUT model_input()
#define RUN() model_run()
#else
static model_input_t input[MODEL_INPUTS];
static model_output_t output[MODEL_OUTPUTS];
#define INPUT input
#define RUN() model_run(input, output)
#endif

#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

static volatile uint16_t overflows;

ISR(TIMER1_OVF_vect)
{
    overflows++;
}

static void say(char c)
{
    while (!(UCSR0A & (1 << UDRE0))) {
    }
    UDR0 = (uint8_t)c;
}

static void print(const char *name, uint32_t number)
{
    char text[11];
    uint8_t at = 0;
    while (*name) {
        say(*name++);
    }
    do {
        text[at++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (at) {
        say(text[--at]);
    }
    say('\n');
}

int main(void)
{
    uint32_t failed, cycles;
    UCSR0B = 1 << TXEN0;
    failed = (uint32_t)model_test();
    load(INPUT, test_inputs, MODEL_INPUTS * sizeof(model_input_t));
    TIMSK1 = 1 << TOIE1;
    TCNT1 = 0;
    TCCR1B = 1 << CS10;
    sei();
    RUN();
    cli();
    cycles = TCNT1;
    cycles += (uint32_t)(overflows + (TIFR1 & (1 << TOV1) && cycles < 32768)) << 16;
    TCCR1B = 0;
    print("failed ", failed);
    print("checked ", (uint32_t)model_check());
    print("cycles ", cycles);
    sleep_enable();
    sleep_cpu();
    return 0;
}
