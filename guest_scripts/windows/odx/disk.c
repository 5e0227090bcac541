/*
 * Plain reads and writes of a disk, to prepare and to check copies.
 *
 *   odx disk fill DISK --from OFFSET --length LENGTH --set seed=N   every 8 bytes hold N << 48 | their own offset
 *   odx disk hash DISK --from OFFSET --length LENGTH                SHA-256 of what is there
 *   odx disk sleep --length MILLISECONDS
 */
#include <stdlib.h>
#include <string.h>

#include "odx.h"

#define PIECE (256u << 10)

static bool move(HANDLE disk, bool write, uint64_t offset, BYTE *data, DWORD length)
{
    OVERLAPPED place = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    DWORD done = 0;
    BOOL ok = write ? WriteFile(disk, data, length, &done, &place) : ReadFile(disk, data, length, &done, &place);
    return ok && done == length;
}

static void make_pattern(BYTE *data, DWORD length, uint64_t offset, uint64_t seed)
{
    for (DWORD at = 0; at + 8 <= length; at += 8) {
        uint64_t word = seed << 48 | (offset + at);
        memcpy(data + at, &word, sizeof word); /* Windows is little-endian everywhere */
    }
}

static bool go_through(HANDLE disk, const arguments *given, BYTE *data, const uint64_t *seed, hash *sum)
{
    for (uint64_t done = 0; done < given->length;) {
        DWORD piece = given->length - done < PIECE ? (DWORD)(given->length - done) : PIECE;
        if (seed != NULL)
            make_pattern(data, piece, given->from + done, *seed);
        if (!move(disk, seed != NULL, given->from + done, data, piece))
            return false;
        if (!hash_add(sum, data, piece))
            return false;
        done += piece;
    }
    return seed == NULL || FlushFileBuffers(disk);
}

static int fill_or_hash(const arguments *given, const uint64_t *seed)
{
    HANDLE disk = open_device(given->words[2], GENERIC_READ | GENERIC_WRITE);
    if (disk == INVALID_HANDLE_VALUE)
        return json_fail("cannot open the disk: run as administrator, and look at its number", GetLastError());
    BYTE *data = VirtualAlloc(NULL, PIECE, MEM_COMMIT, PAGE_READWRITE), digest[32]; /* page-aligned, as disks want it */
    hash sum;
    bool ok = data != NULL && hash_begin(&sum);
    DWORD error = 0;
    if (ok) {
        ok = go_through(disk, given, data, seed, &sum);
        error = ok ? 0 : GetLastError();
        ok = hash_end(&sum, digest) && ok;
    }
    CloseHandle(disk);
    VirtualFree(data, 0, MEM_RELEASE);
    if (!ok)
        return json_fail("cannot read or write there", error);
    json_number("bytes", given->length);
    json_hex("sha256", digest, sizeof digest);
    return json_end(EXIT_OK);
}

int command_disk(const arguments *given)
{
    uint64_t seed = 0;
    const char *job = given->count > 1 ? given->words[1] : "";
    if (strcmp(job, "sleep") == 0) {
        Sleep((DWORD)given->length);
        return json_end(EXIT_OK);
    }
    if (given->count != 3 || given->length == 0)
        return EXIT_USAGE;
    if (strcmp(job, "fill") == 0 && setting(given, "seed", &seed))
        return fill_or_hash(given, &seed);
    return strcmp(job, "hash") == 0 ? fill_or_hash(given, NULL) : EXIT_USAGE;
}
