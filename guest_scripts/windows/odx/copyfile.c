/*
 * CopyFileEx, as Explorer and robocopy copy: Windows tries ODX by itself for files from 256 KiB on. The seconds and
 * the hashes tell whether it did and whether the copy is right.
 *
 *   odx copyfile SOURCE DESTINATION
 */
#include "odx.h"

#define PIECE (1u << 20)

static bool hash_file(const char *path, const char *name)
{
    static BYTE piece[PIECE];
    BYTE digest[32];
    hash sum;
    DWORD got = 0;
    HANDLE file = open_device(path, GENERIC_READ);
    if (file == INVALID_HANDLE_VALUE || !hash_begin(&sum)) {
        CloseHandle(file);
        return false;
    }
    bool ok = true;
    while (ok && (ok = ReadFile(file, piece, PIECE, &got, NULL)) && got > 0)
        ok = hash_add(&sum, piece, got);
    ok = hash_end(&sum, digest) && ok;
    CloseHandle(file);
    if (ok)
        json_hex(name, digest, sizeof digest);
    return ok;
}

int command_copyfile(const arguments *given)
{
    if (given->count != 3)
        return EXIT_USAGE;
    ULONGLONG began = GetTickCount64();
    if (!CopyFileExA(given->words[1], given->words[2], NULL, NULL, NULL, COPY_FILE_FAIL_IF_EXISTS))
        return json_fail("CopyFileEx failed: the destination must be new", GetLastError());
    json_number("milliseconds", GetTickCount64() - began);
    if (!hash_file(given->words[1], "source_sha256") || !hash_file(given->words[2], "destination_sha256"))
        return json_fail("cannot read a file again", GetLastError());
    return json_end(EXIT_OK);
}
