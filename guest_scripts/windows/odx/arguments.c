/* Options and words of a command. Numbers are decimal, or hexadecimal with 0x; K, M and G multiply by 1024. */
#include <stdlib.h>
#include <string.h>

#include "odx.h"

bool parse_number(const char *text, uint64_t *value)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 0);
    const char *units = "KMG", *unit = *end != 0 ? strchr(units, *end) : NULL;
    if (unit != NULL) {
        *value <<= 10 * (unit - units + 1);
        end++;
    }
    return *end == 0;
}

/* OFFSET:LENGTH */
static bool parse_range(const char *text, range *out)
{
    char front[32];
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof front)
        return false;
    memcpy(front, text, (size_t)(colon - text));
    front[colon - text] = 0;
    return parse_number(front, &out->offset) && parse_number(colon + 1, &out->length);
}

/* NAME=VALUE; the '=' becomes the name's end */
static bool parse_setting(char *text, arguments *out)
{
    char *equals = strchr(text, '=');
    if (equals == NULL || out->set_count == 8)
        return false;
    *equals = 0;
    out->set[out->set_count].name = text;
    return parse_number(equals + 1, &out->set[out->set_count++].value);
}

static bool parse_length(const char *text, DWORD *value, bool *has)
{
    uint64_t number;
    *has = parse_number(text, &number) && number <= 1u << 20;
    *value = (DWORD)number;
    return *has;
}

static bool parse_option(const char *name, char *value, arguments *out)
{
    if (strcmp(name, "--range") == 0)
        return out->range_count < MOST_RANGES && parse_range(value, &out->ranges[out->range_count++]);
    if (strcmp(name, "--token") == 0)
        return (out->token = value) != NULL;
    if (strcmp(name, "--token-offset") == 0)
        return parse_number(value, &out->token_offset);
    if (strcmp(name, "--ttl") == 0)
        return parse_number(value, &out->time_to_live);
    if (strcmp(name, "--from") == 0)
        return parse_number(value, &out->from);
    if (strcmp(name, "--to") == 0)
        return parse_number(value, &out->to);
    if (strcmp(name, "--length") == 0)
        return parse_number(value, &out->length);
    if (strcmp(name, "--flip") == 0)
        return out->has_flip = parse_number(value, &out->flip);
    if (strcmp(name, "--cut") == 0)
        return out->has_cut = parse_number(value, &out->cut);
    if (strcmp(name, "--in-length") == 0)
        return parse_length(value, &out->in_length, &out->has_in_length);
    if (strcmp(name, "--out-length") == 0)
        return parse_length(value, &out->out_length, &out->has_out_length);
    if (strcmp(name, "--set") == 0)
        return parse_setting(value, out);
    return false;
}

bool parse_arguments(arguments *out, int count, char **words)
{
    memset(out, 0, sizeof *out);
    for (int index = 0; index < count; index++) {
        if (strcmp(words[index], "--exists") == 0) {
            out->exists = true;
        } else if (strncmp(words[index], "--", 2) == 0) {
            if (index + 1 == count || !parse_option(words[index], words[index + 1], out))
                return false;
            index++;
        } else {
            if (out->count == 4)
                return false;
            out->words[out->count++] = words[index];
        }
    }
    return true;
}

bool setting(const arguments *given, const char *name, uint64_t *value)
{
    for (int index = 0; index < given->set_count; index++)
        if (strcmp(given->set[index].name, name) == 0) {
            *value = given->set[index].value;
            return true;
        }
    return false;
}
