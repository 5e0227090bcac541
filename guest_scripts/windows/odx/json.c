/* A JSON object, written as it comes. Names are ours and need no escapes; values of others get them. */
#include "odx.h"

static bool first;

static void name_it(const char *name)
{
    if (!first)
        putchar(',');
    first = false;
    if (name != NULL)
        printf("\"%s\":", name);
}

static void put_text(const char *value)
{
    putchar('"');
    for (; *value != 0; value++) {
        unsigned char letter = (unsigned char)*value;
        if (letter == '"' || letter == '\\')
            printf("\\%c", letter);
        else if (letter < 0x20 || letter >= 0x7F)
            printf("\\u%04x", letter);
        else
            putchar(letter);
    }
    putchar('"');
}

void json_begin(void)
{
    putchar('{');
    first = true;
}

int json_end(int code)
{
    json_bool("ok", code == EXIT_OK);
    json_number("exit", (uint64_t)code);
    puts("}");
    fflush(stdout);
    return code;
}

void json_text(const char *name, const char *value)
{
    name_it(name);
    put_text(value);
}

void json_number(const char *name, uint64_t value)
{
    name_it(name);
    printf("%llu", (unsigned long long)value);
}

void json_bool(const char *name, bool value)
{
    name_it(name);
    fputs(value ? "true" : "false", stdout);
}

void json_hex(const char *name, const void *data, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    name_it(name);
    putchar('"');
    for (const BYTE *at = data; length > 0; at++, length--) {
        putchar(digits[*at >> 4]);
        putchar(digits[*at & 15]);
    }
    putchar('"');
}

void json_status(const char *name, DWORD value)
{
    name_it(name);
    printf("\"0x%08lX\"", (unsigned long)value);
}

void json_open(const char *name, char bracket)
{
    name_it(name);
    putchar(bracket);
    first = true;
}

void json_close(char bracket)
{
    putchar(bracket);
    first = false;
}

int json_fail(const char *what, DWORD error)
{
    json_text("error", what);
    json_number("win32", error);
    return json_end(EXIT_FAILED);
}
