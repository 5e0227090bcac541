/*
 * FSCTL_OFFLOAD_READ and FSCTL_OFFLOAD_WRITE on NTFS files: the way that is open to programs on every Windows, if
 * both disks offer ODX (vhost-user-scsi). Wine's file systems do not know them: exit code 3 there.
 *
 *   odx fsctl copy SOURCE DESTINATION
 */
#include <string.h>

#include "odx.h"

#define READ_MOST (256ull << 20) /* of one token; files much larger take several */
#define SECTOR 4096ull           /* lengths are whole sectors; the end of the file is set afterwards */

static bool set_end(HANDLE file, uint64_t length)
{
    LARGE_INTEGER end = {.QuadPart = (LONGLONG)length};
    return SetFilePointerEx(file, end, NULL, FILE_BEGIN) && SetEndOfFile(file);
}

static answer read_token(HANDLE file, uint64_t offset, uint64_t length, FSCTL_OFFLOAD_READ_OUTPUT *made)
{
    FSCTL_OFFLOAD_READ_INPUT in = {.Size = sizeof in, .FileOffset = offset, .CopyLength = length};
    memset(made, 0, sizeof *made);
    return control(file, FSCTL_OFFLOAD_READ, "FSCTL_OFFLOAD_READ", &in, sizeof in, made, sizeof *made);
}

static answer write_token(HANDLE file, uint64_t offset, const FSCTL_OFFLOAD_READ_OUTPUT *made, uint64_t done,
                          FSCTL_OFFLOAD_WRITE_OUTPUT *wrote)
{
    FSCTL_OFFLOAD_WRITE_INPUT in = {.Size = sizeof in, .FileOffset = offset + done, .TransferOffset = done,
                                    .CopyLength = made->TransferLength - done};
    memcpy(in.Token, made->Token, sizeof in.Token);
    memset(wrote, 0, sizeof *wrote);
    return control(file, FSCTL_OFFLOAD_WRITE, "FSCTL_OFFLOAD_WRITE", &in, sizeof in, wrote, sizeof *wrote);
}

static answer copy(HANDLE from, HANDLE to, uint64_t length, uint64_t *copied)
{
    FSCTL_OFFLOAD_READ_OUTPUT made;
    FSCTL_OFFLOAD_WRITE_OUTPUT wrote;
    answer got = {.ok = true};
    while (got.ok && *copied < length) {
        uint64_t wanted = length - *copied < READ_MOST ? length - *copied : READ_MOST, done = 0;
        got = read_token(from, *copied, wanted, &made);
        if (!got.ok || made.TransferLength == 0)
            break;
        do {
            got = write_token(to, *copied, &made, done, &wrote);
            done += wrote.LengthWritten;
        } while (got.ok && wrote.LengthWritten > 0 && done < made.TransferLength);
        if (done == 0)
            break;
        *copied += done;
    }
    return got;
}

static int copy_files(HANDLE from, HANDLE to)
{
    LARGE_INTEGER size;
    if (!GetFileSizeEx(from, &size))
        return json_fail("cannot tell the size of the source", GetLastError());
    uint64_t length = (uint64_t)size.QuadPart, whole = (length + SECTOR - 1) / SECTOR * SECTOR, copied = 0;
    if (!set_end(to, whole)) /* NTFS writes tokens only into space that is there */
        return json_fail("cannot extend the destination", GetLastError());
    json_open("calls", '[');
    answer got = copy(from, to, whole, &copied);
    json_close(']');
    bool ended = set_end(to, copied < length ? copied : length);
    json_number("copied", copied < length ? copied : length);
    if (got.ok && (copied < length || !ended))
        return json_end(EXIT_FAILED);
    return json_end(exit_code(&got));
}

int command_fsctl(const arguments *given)
{
    if (given->count != 4 || strcmp(given->words[1], "copy") != 0)
        return EXIT_USAGE;
    HANDLE from = CreateFileA(given->words[2], GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (from == INVALID_HANDLE_VALUE)
        return json_fail("cannot open the source", GetLastError());
    HANDLE to = CreateFileA(given->words[3], GENERIC_READ | GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL);
    if (to == INVALID_HANDLE_VALUE) {
        CloseHandle(from);
        return json_fail("cannot make the destination: it must be a new file", GetLastError());
    }
    int code = copy_files(from, to);
    CloseHandle(to);
    CloseHandle(from);
    return code;
}
