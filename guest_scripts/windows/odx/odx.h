/*
 * odx.exe: offloaded data transfer from a Windows program, each way there is, with every structure shown.
 *
 * One source file per job. Each command prints one line of JSON on standard output and ends with one of the codes
 * below; `odx batch` runs many commands in one process and prints a line for each.
 */
#ifndef ODX_H
#define ODX_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "odx_windows.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNSUPPORTED = 3 };

#define TOKEN_BYTES 512
#define MOST_RANGES 128

/* arguments.c: what stands on the command line. */
typedef struct range { uint64_t offset, length; } range;

typedef struct arguments {
    const char *words[4]; /* in order, without options */
    int count;
    range ranges[MOST_RANGES];
    DWORD range_count;
    const char *token;    /* --token FILE, or zero */
    uint64_t token_offset, time_to_live, from, to, length, flip, cut;
    bool has_flip, has_cut, exists;
    DWORD in_length, out_length;
    bool has_in_length, has_out_length;
    struct { const char *name; uint64_t value; } set[8]; /* --set NAME=VALUE */
    int set_count;
} arguments;

bool parse_arguments(arguments *out, int count, char **words);
bool parse_number(const char *text, uint64_t *value);
bool setting(const arguments *given, const char *name, uint64_t *value);

/* json.c: one object on one line. */
void json_begin(void);
int json_end(int code); /* writes "ok" and "exit", and returns the code */
void json_text(const char *name, const char *value);
void json_number(const char *name, uint64_t value);
void json_bool(const char *name, bool value);
void json_hex(const char *name, const void *data, size_t length);
void json_status(const char *name, DWORD value); /* as "0xC0000465" */
void json_open(const char *name, char bracket);
void json_close(char bracket);
int json_fail(const char *what, DWORD error); /* a Win32 error outside of a call */

/* device.c: opening, and the one call that all commands make. */
typedef struct answer {
    bool ok;
    DWORD returned, win32, ntstatus;
} answer;

HANDLE open_device(const char *path, DWORD access);
answer control(HANDLE device, DWORD code, const char *action, const void *in, DWORD in_length, void *out,
               DWORD out_length);
int exit_code(const answer *got);

/* token.c */
bool load_token(const arguments *given, BYTE *token);
bool save_token(const char *path, const BYTE *token);

/* hash.c: SHA-256 */
typedef struct hash { void *algorithm, *state; } hash;
bool hash_begin(hash *sum);
bool hash_add(hash *sum, const void *data, DWORD length);
bool hash_end(hash *sum, BYTE digest[32]);

/* The commands. */
int run_command(int count, char **words);
int command_ioctl(const arguments *given);
int command_property(const arguments *given);
int command_fsctl(const arguments *given);
int command_scsi(const arguments *given);
int command_copyfile(const arguments *given);
int command_disk(const arguments *given);

#endif
