/* Opening a disk, a volume or a file, and DeviceIoControl with its whole traffic in the JSON. */
#include "odx.h"

HANDLE open_device(const char *path, DWORD access)
{
    return CreateFileA(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
}

/* The NTSTATUS behind GetLastError: ntdll keeps the last one that it turned into a Win32 error. */
static DWORD last_ntstatus(void)
{
    typedef DWORD(WINAPI * function)(void);
    FARPROC found = GetProcAddress(GetModuleHandleA("ntdll.dll"), "RtlGetLastNtStatus");
    return found != NULL ? ((function)(void (*)(void))found)() : 0xC0000001;
}

/* The guest's time in microseconds since 1970: a trace of the server is merged by it. */
static uint64_t unix_us(void)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    uint64_t ticks = (uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime; /* of 100 ns, since 1601 */
    return ticks / 10 - 11644473600000000ull;
}

answer control(HANDLE device, DWORD code, const char *action, const void *in, DWORD in_length, void *out,
               DWORD out_length)
{
    answer got = {0};
    uint64_t began = unix_us();
    got.ok = DeviceIoControl(device, code, (void *)in, in_length, out, out_length, &got.returned, NULL);
    if (!got.ok) {
        got.win32 = GetLastError();
        got.ntstatus = last_ntstatus();
    }
    if (got.returned > out_length)
        got.returned = out_length;
    json_open(NULL, '{');
    json_text("action", action);
    json_number("unix_us", began);
    json_status("code", code);
    json_hex("in_hex", in, in_length);
    json_number("out_length", out_length);
    json_hex("out_hex", out, got.ok ? got.returned : 0);
    json_number("win32", got.win32);
    json_status("ntstatus", got.ntstatus);
    json_close('}');
    return got;
}

/* Statuses that say "not here", where another way may do; anything else went wrong on a way that is open. */
static bool unsupported(DWORD status)
{
    switch (status) {
    case 0xC0000002: /* STATUS_NOT_IMPLEMENTED */
    case 0xC0000010: /* STATUS_INVALID_DEVICE_REQUEST */
    case 0xC0000022: /* STATUS_ACCESS_DENIED: the class driver's answer to every program (the handle was granted) */
    case 0xC00000BB: /* STATUS_NOT_SUPPORTED */
    case 0xC0000463: /* STATUS_DEVICE_FEATURE_NOT_SUPPORTED */
        return true;
    default: /* STATUS_OFFLOAD_{READ,WRITE}_{FLT,FILE}_NOT_SUPPORTED */
        return status >= 0xC000A2A1 && status <= 0xC000A2A4;
    }
}

int exit_code(const answer *got)
{
    if (got->ok)
        return EXIT_OK;
    return unsupported(got->ntstatus) ? EXIT_UNSUPPORTED : EXIT_FAILED;
}
