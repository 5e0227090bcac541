/*
 * IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES with DeviceDsmAction_OffloadRead and DeviceDsmAction_OffloadWrite.
 *
 *   odx ioctl read DISK --range OFFSET:LENGTH... [--ttl N] [--token FILE]     the token goes to FILE
 *   odx ioctl write DISK --token FILE|zero --range OFFSET:LENGTH... [--token-offset N]
 *   odx ioctl copy SOURCE DESTINATION --from OFFSET --to OFFSET --length N
 *
 * Windows' own driver takes this IOCTL from kernel mode only and answers a program with access denied (exit code 3);
 * our filter driver answers programs if its policy AllowUserMode says so. To see what a driver makes of bad input,
 * --in-length and --out-length change the buffers' lengths and --set NAME=VALUE changes fields: action, size, flags,
 * parameter-offset, parameter-length, ranges-offset, ranges-length, write-flags, write-reserved.
 */
#include <stdlib.h>
#include <string.h>

#include "odx.h"

#define BUFFER_ROOM (1u << 20)
#define READ_RANGES 48  /* where DeviceDsmAddDataSetRange of the SDK puts the ranges: at the next multiple of 8 */
#define WRITE_BLOCK 32
#define WRITE_RANGES 560

typedef struct request {
    BYTE *in;
    DWORD length;
    BYTE *out;
    DWORD out_length;
} request;

static void put_setting(const arguments *given, const char *name, DWORD *field)
{
    uint64_t value;
    if (setting(given, name, &value))
        *field = (DWORD)value;
}

/* The head as asked for; --set wins. */
static void put_head(request *r, const arguments *given, DWORD action, DWORD block, DWORD block_length, DWORD ranges)
{
    DEVICE_MANAGE_DATA_SET_ATTRIBUTES head = {
        .Size = sizeof head,
        .Action = action,
        .ParameterBlockOffset = block,
        .ParameterBlockLength = block_length,
        .DataSetRangesOffset = ranges,
        .DataSetRangesLength = given->range_count * (DWORD)sizeof(DEVICE_DATA_SET_RANGE),
    };
    for (DWORD index = 0; index < given->range_count; index++) {
        DEVICE_DATA_SET_RANGE part = {.StartingOffset = (LONGLONG)given->ranges[index].offset,
                                      .LengthInBytes = given->ranges[index].length};
        memcpy(r->in + ranges + index * sizeof part, &part, sizeof part);
    }
    r->length = ranges + head.DataSetRangesLength;
    put_setting(given, "size", &head.Size);
    put_setting(given, "action", (DWORD *)&head.Action);
    put_setting(given, "flags", &head.Flags);
    put_setting(given, "parameter-offset", &head.ParameterBlockOffset);
    put_setting(given, "parameter-length", &head.ParameterBlockLength);
    put_setting(given, "ranges-offset", &head.DataSetRangesOffset);
    put_setting(given, "ranges-length", &head.DataSetRangesLength);
    memcpy(r->in, &head, sizeof head);
}

static void build_read(request *r, const arguments *given)
{
    DEVICE_DSM_OFFLOAD_READ_PARAMETERS block = {.TimeToLive = (DWORD)given->time_to_live};
    memcpy(r->in + sizeof(DEVICE_MANAGE_DATA_SET_ATTRIBUTES), &block, sizeof block);
    put_head(r, given, DeviceDsmAction_OffloadRead, sizeof(DEVICE_MANAGE_DATA_SET_ATTRIBUTES), sizeof block, READ_RANGES);
    r->out_length = sizeof(STORAGE_OFFLOAD_READ_OUTPUT);
}

static void build_write(request *r, const arguments *given, const BYTE *token)
{
    DEVICE_DSM_OFFLOAD_WRITE_PARAMETERS block = {.TokenOffset = given->token_offset};
    memcpy(&block.Token, token, TOKEN_BYTES);
    put_setting(given, "write-flags", &block.Flags);
    put_setting(given, "write-reserved", &block.Reserved);
    memcpy(r->in + WRITE_BLOCK, &block, sizeof block);
    put_head(r, given, DeviceDsmAction_OffloadWrite, WRITE_BLOCK, sizeof block, WRITE_RANGES);
    r->out_length = sizeof(STORAGE_OFFLOAD_WRITE_OUTPUT);
}

static answer issue(HANDLE disk, request *r, const arguments *given, const char *action)
{
    if (given->has_in_length)
        r->length = given->in_length;
    if (given->has_out_length)
        r->out_length = given->out_length;
    memset(r->out, 0, r->out_length);
    return control(disk, IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES, action, r->in, r->length, r->out, r->out_length);
}

static answer offload_read(HANDLE disk, request *r, const arguments *given, STORAGE_OFFLOAD_READ_OUTPUT *output)
{
    memset(r->in, 0, BUFFER_ROOM);
    build_read(r, given);
    answer got = issue(disk, r, given, "OffloadRead");
    memcpy(output, r->out, sizeof *output);
    if (got.ok && got.returned < sizeof *output)
        memset(output, 0, sizeof *output);
    return got;
}

static answer offload_write(HANDLE disk, request *r, const arguments *given, const BYTE *token,
                            STORAGE_OFFLOAD_WRITE_OUTPUT *output)
{
    memset(r->in, 0, BUFFER_ROOM);
    build_write(r, given, token);
    answer got = issue(disk, r, given, "OffloadWrite");
    memcpy(output, r->out, sizeof *output);
    return got;
}

static int run_read(HANDLE disk, request *r, const arguments *given)
{
    STORAGE_OFFLOAD_READ_OUTPUT output;
    json_open("calls", '[');
    answer got = offload_read(disk, r, given, &output);
    json_close(']');
    json_number("length_protected", got.ok ? output.LengthProtected : 0);
    json_number("flags", got.ok ? output.OffloadReadFlags : 0);
    if (got.ok && given->token != NULL && !save_token(given->token, (const BYTE *)&output.Token))
        return json_fail("cannot write the token's file", GetLastError());
    return json_end(exit_code(&got));
}

static int run_write(HANDLE disk, request *r, const arguments *given)
{
    STORAGE_OFFLOAD_WRITE_OUTPUT output;
    BYTE token[TOKEN_BYTES];
    if (!load_token(given, token))
        return json_fail("no token: give --token zero or a file of 512 bytes", ERROR_FILE_NOT_FOUND);
    json_open("calls", '[');
    answer got = offload_write(disk, r, given, token, &output);
    json_close(']');
    json_number("length_copied", got.ok ? output.LengthCopied : 0);
    json_number("flags", got.ok ? output.OffloadWriteFlags : 0);
    return json_end(exit_code(&got));
}

/* As the copy engine does: a token for as much as the disk lets one stand for, written in as many calls as it takes. */
static answer copy_piece(HANDLE from, HANDLE to, request *r, arguments piece, uint64_t *copied)
{
    STORAGE_OFFLOAD_READ_OUTPUT made;
    STORAGE_OFFLOAD_WRITE_OUTPUT wrote;
    piece.ranges[0] = (range){piece.from, piece.length};
    piece.range_count = 1;
    answer got = offload_read(from, r, &piece, &made);
    for (uint64_t done = 0; got.ok && done < made.LengthProtected; done += wrote.LengthCopied) {
        piece.ranges[0] = (range){piece.to + done, made.LengthProtected - done};
        piece.token_offset = done;
        got = offload_write(to, r, &piece, (const BYTE *)&made.Token, &wrote);
        if (!got.ok || wrote.LengthCopied == 0)
            break;
        *copied += wrote.LengthCopied;
    }
    return got;
}

static int run_copy(HANDLE from, HANDLE to, request *r, const arguments *given)
{
    answer got = {.ok = true};
    uint64_t copied = 0;
    json_open("calls", '[');
    while (got.ok && copied < given->length) {
        arguments piece = *given;
        uint64_t before = copied;
        piece.from += copied;
        piece.to += copied;
        piece.length -= copied;
        got = copy_piece(from, to, r, piece, &copied);
        if (copied == before)
            break;
    }
    json_close(']');
    json_number("copied", copied);
    return json_end(got.ok && copied < given->length ? EXIT_FAILED : exit_code(&got));
}

static int with_disks(const arguments *given, request *r)
{
    bool copy = strcmp(given->words[1], "copy") == 0;
    HANDLE disk = open_device(given->words[2], GENERIC_READ | GENERIC_WRITE), other = INVALID_HANDLE_VALUE;
    if (copy)
        other = open_device(given->words[3], GENERIC_READ | GENERIC_WRITE);
    int code;
    if (disk == INVALID_HANDLE_VALUE || (copy && other == INVALID_HANDLE_VALUE))
        code = json_fail("cannot open the disk: run as administrator, and look at its number", GetLastError());
    else if (copy)
        code = run_copy(disk, other, r, given);
    else
        code = strcmp(given->words[1], "read") == 0 ? run_read(disk, r, given) : run_write(disk, r, given);
    CloseHandle(other);
    CloseHandle(disk);
    return code;
}

int command_ioctl(const arguments *given)
{
    const char *job = given->count > 1 ? given->words[1] : "";
    bool known = strcmp(job, "read") == 0 || strcmp(job, "write") == 0;
    if (!(known && given->count == 3) && !(strcmp(job, "copy") == 0 && given->count == 4 && given->length > 0))
        return EXIT_USAGE;
    request r = {.in = malloc(BUFFER_ROOM), .out = malloc(BUFFER_ROOM)};
    if (r.in == NULL || r.out == NULL)
        return json_fail("out of memory", ERROR_NOT_ENOUGH_MEMORY);
    int code = with_disks(given, &r);
    free(r.in);
    free(r.out);
    return code;
}
