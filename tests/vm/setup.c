/* A UEFI program that behaves as Windows' Setup does towards whoever watches it: it asks for a key before it boots from
 * the CD, reboots in the middle, says on the console that it is done, and switches off. OVMF copies its console to the
 * serial port. Offsets: UEFI Specification 2.10, 4.3 (system table), 8 (runtime services), 12 (consoles). */
typedef unsigned long long word;
typedef unsigned short wide;

static char *system_table;

static void *at(void *table, int offset) { return *(void **)((char *)table + offset); }

static void say(const wide *text)
{
    void *out = at(system_table, 0x40);
    ((word(*)(void *, const wide *))at(out, 0x08))(out, text);
}

static void await_key(void)
{
    void *in = at(system_table, 0x30);
    wide key[2];
    while (((word(*)(void *, void *))at(in, 0x08))(in, key) != 0) {
    }
}

static void reset(int kind) /* 0 cold, 2 switch off */
{
    ((void (*)(int, word, word, void *))at(at(system_table, 0x58), 0x68))(kind, 0, 0, 0);
}

/* Whether this is the first boot: a variable of ours is kept in the machine's flash. */
static int first_boot(void)
{
    static unsigned char vendor[16] = {0x0d, 0x06};
    static wide name[] = L"OdxSetup";
    void *runtime = at(system_table, 0x58);
    unsigned char value = 1;
    word size = 1;
    unsigned int attributes = 0;
    word status = ((word(*)(wide *, void *, unsigned int *, word *, void *))at(runtime, 0x48))(name, vendor, &attributes,
                                                                                             &size, &value);
    if (status == 0)
        return 0;
    value = 1; /* attributes 3: non-volatile, for boot services */
    ((word(*)(wide *, void *, unsigned int, word, void *))at(runtime, 0x58))(name, vendor, 3, 1, &value);
    return 1;
}

word efi_main(void *image, void *table)
{
    (void)image;
    system_table = table;
    if (first_boot()) {
        say(L"Press any key to boot from CD or DVD.....\r\n");
        await_key();
        say(L"LAB:step drivers\r\n");
        reset(0);
    }
    say(L"LAB:installed\r\n");
    reset(2);
    return 0;
}
