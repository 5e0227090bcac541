/*
 * The SCSI commands themselves by IOCTL_SCSI_PASS_THROUGH, for disks that take them (vhost-user-scsi under vioscsi;
 * viostor refuses them, exit code 3).
 *
 *   odx scsi populate DISK --range LBA:BLOCKS... [--ttl SECONDS] [--set list=N]
 *   odx scsi receive DISK [--token FILE] [--set list=N]                the token goes to FILE
 *   odx scsi write DISK --token FILE|zero --range LBA:BLOCKS... [--token-offset BLOCKS] [--set list=N]
 */
#include <stddef.h>
#include <string.h>

#include "odx.h"

#define ANSWER_ROOM 805u
#define LIST_ROOM (536u + 16u * MOST_RANGES)

typedef struct packet {
    SCSI_PASS_THROUGH through;
    BYTE sense[32];
    BYTE data[LIST_ROOM];
} packet;

static void put_big(BYTE *at, uint64_t value, int bytes)
{
    while (bytes > 0) {
        at[--bytes] = (BYTE)value;
        value >>= 8;
    }
}

/* Range descriptors at data + place, and the two length fields before them; SBC-4 5.12 and 5.49. */
static ULONG put_ranges(packet *p, const arguments *given, ULONG place)
{
    ULONG bytes = 16 * given->range_count;
    for (DWORD index = 0; index < given->range_count; index++) {
        put_big(p->data + place + 16 * index, given->ranges[index].offset, 8);
        put_big(p->data + place + 16 * index + 8, given->ranges[index].length, 4);
    }
    put_big(p->data, place + bytes - 2, 2);
    put_big(p->data + place - 2, bytes, 2);
    return place + bytes;
}

static void prepare(packet *p, const arguments *given, BYTE operation, BYTE action, ULONG length, BYTE direction)
{
    uint64_t list = 1;
    setting(given, "list", &list);
    p->through = (SCSI_PASS_THROUGH){
        .Length = sizeof p->through,
        .CdbLength = 16,
        .SenseInfoLength = sizeof p->sense,
        .DataIn = direction,
        .DataTransferLength = length,
        .TimeOutValue = 60,
        .DataBufferOffset = offsetof(packet, data),
        .SenseInfoOffset = offsetof(packet, sense),
    };
    p->through.Cdb[0] = operation;
    p->through.Cdb[1] = action;
    put_big(p->through.Cdb + (operation == 0x83 ? 6 : 2), list, 4);
    put_big(p->through.Cdb + 10, length, 4);
}

static int issue(const arguments *given, packet *p, const char *action)
{
    HANDLE disk = open_device(given->words[2], GENERIC_READ | GENERIC_WRITE);
    if (disk == INVALID_HANDLE_VALUE)
        return json_fail("cannot open the disk: run as administrator, and look at its number", GetLastError());
    json_open("calls", '[');
    packet out = *p;
    answer got = control(disk, IOCTL_SCSI_PASS_THROUGH, action, p, sizeof *p, &out, sizeof out);
    json_close(']');
    CloseHandle(disk);
    *p = out;
    json_number("scsi_status", got.ok ? out.through.ScsiStatus : 0);
    json_hex("sense", out.sense, got.ok && out.through.ScsiStatus != 0 ? sizeof out.sense : 0);
    int code = exit_code(&got);
    return code == EXIT_OK && out.through.ScsiStatus != 0 ? EXIT_FAILED : code;
}

static int populate(const arguments *given, packet *p)
{
    ULONG length = put_ranges(p, given, 16);
    put_big(p->data + 4, given->time_to_live, 4);
    prepare(p, given, 0x83, 0x10, length, SCSI_IOCTL_DATA_OUT);
    return json_end(issue(given, p, "POPULATE TOKEN"));
}

static int write_using(const arguments *given, packet *p)
{
    if (!load_token(given, p->data + 16))
        return json_fail("no token: give --token zero or a file of 512 bytes", ERROR_FILE_NOT_FOUND);
    ULONG length = put_ranges(p, given, 536);
    put_big(p->data + 8, given->token_offset, 8);
    prepare(p, given, 0x83, 0x11, length, SCSI_IOCTL_DATA_OUT);
    return json_end(issue(given, p, "WRITE USING TOKEN"));
}

/* The token lies behind the sense data field; SPC-4 6.24. */
static int receive(const arguments *given, packet *p)
{
    prepare(p, given, 0x84, 0x07, ANSWER_ROOM, SCSI_IOCTL_DATA_IN);
    int code = issue(given, p, "RECEIVE ROD TOKEN INFORMATION");
    ULONG token = 32u + p->data[13] + 6;
    bool has = code == EXIT_OK && p->data[token - 4] == 0x02 && p->data[token - 3] == 0x02;
    json_number("copy_operation_status", code == EXIT_OK ? p->data[5] & 0x7F : 0);
    json_bool("token", has);
    if (has && given->token != NULL && !save_token(given->token, p->data + token))
        return json_fail("cannot write the token's file", GetLastError());
    return json_end(code);
}

int command_scsi(const arguments *given)
{
    packet p = {0};
    const char *job = given->count == 3 ? given->words[1] : "";
    if (strcmp(job, "populate") == 0)
        return populate(given, &p);
    if (strcmp(job, "write") == 0)
        return write_using(given, &p);
    return strcmp(job, "receive") == 0 ? receive(given, &p) : EXIT_USAGE;
}
