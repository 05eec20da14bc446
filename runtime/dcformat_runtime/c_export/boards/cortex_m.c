/* Runs the tests of a model on QEMU's mps2-an385 or mps2-an386, and counts the ticks of a run on the first test's input. */

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

#define TIMER ((volatile uint32_t *)0x40000000u) /* CMSDK timer 0: control, value, reload */

extern uint32_t data_begin[], data_end[], data_source[], bss_begin[], bss_end[], stack_top[];
void reset(void);

__attribute__((section(".vectors"), used)) static void *const vectors[2] = {stack_top, (void *)reset};

static int semihosting(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(const char *name, uint32_t number)
{
    char text[12];
    char *at = text + sizeof text - 1;
    *at = 0;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    semihosting(4, name);
    semihosting(4, at);
    semihosting(4, "\n");
}

void reset(void)
{
    static const uint32_t done[2] = {0x20026, 0};
    uint32_t failed, ticks;
    for (uint32_t *to = data_begin, *from = data_source; to < data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_begin; to < bss_end;) {
        *to++ = 0;
    }
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm__ volatile("dsb\n isb");
#endif
    failed = (uint32_t)model_test();
    load(INPUT, test_inputs, MODEL_INPUTS * sizeof(model_input_t));
    TIMER[2] = TIMER[1] = 0xFFFFFFFFu;
    TIMER[0] = 1;
    RUN();
    ticks = 0xFFFFFFFFu - TIMER[1];
    print("failed ", failed);
    print("checked ", (uint32_t)model_check());
    print("ticks ", ticks);
    semihosting(0x20, done);
    for (;;) {
    }
}
