/* Tokens between commands: files of 512 bytes; and for tests, tokens with a bit turned or an end cut off. */
#include <string.h>

#include "odx.h"

static const BYTE zero_token[8] = {0xFF, 0xFF, 0x00, 0x01, 0, 0, 0x01, 0xF8}; /* MAKE_ZERO_TOKEN of ntddstor.h */

static bool read_token(const char *path, BYTE *token)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    size_t got = fread(token, 1, TOKEN_BYTES, file);
    fclose(file);
    return got == TOKEN_BYTES;
}

bool save_token(const char *path, const BYTE *token)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return false;
    size_t put = fwrite(token, 1, TOKEN_BYTES, file);
    return fclose(file) == 0 && put == TOKEN_BYTES;
}

/* The token of --token; --flip turns a bit of one byte, --cut zeroes what lies behind so many bytes. */
bool load_token(const arguments *given, BYTE *token)
{
    memset(token, 0, TOKEN_BYTES);
    if (given->token == NULL)
        return false;
    if (strcmp(given->token, "zero") == 0)
        memcpy(token, zero_token, sizeof zero_token);
    else if (!read_token(given->token, token))
        return false;
    if (given->has_flip && given->flip < TOKEN_BYTES)
        token[given->flip] ^= 1;
    if (given->has_cut && given->cut < TOKEN_BYTES)
        memset(token + given->cut, 0, TOKEN_BYTES - given->cut);
    return true;
}
