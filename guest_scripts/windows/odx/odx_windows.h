/*
 * Windows' headers, with the offload structures from wherever they are: Microsoft's winioctl.h has them all; mingw's
 * has only some, and its ntddstor.h, which has them, must come in its place. FSCTL_OFFLOAD_* mingw has nowhere.
 */
#ifndef ODX_WINDOWS_H
#define ODX_WINDOWS_H

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#ifdef __MINGW32__
#include <devioctl.h>
#include <ntddstor.h>

#define FSCTL_OFFLOAD_READ CTL_CODE(FILE_DEVICE_FILE_SYSTEM, 153, METHOD_BUFFERED, FILE_READ_ACCESS)
#define FSCTL_OFFLOAD_WRITE CTL_CODE(FILE_DEVICE_FILE_SYSTEM, 154, METHOD_BUFFERED, FILE_WRITE_ACCESS)

/* MS-FSCC 2.3.41 to 2.3.44 */
typedef struct _FSCTL_OFFLOAD_READ_INPUT {
    DWORD Size, Flags, TokenTimeToLive, Reserved;
    DWORDLONG FileOffset, CopyLength;
} FSCTL_OFFLOAD_READ_INPUT;
typedef struct _FSCTL_OFFLOAD_READ_OUTPUT {
    DWORD Size, Flags;
    DWORDLONG TransferLength;
    BYTE Token[512];
} FSCTL_OFFLOAD_READ_OUTPUT;
typedef struct _FSCTL_OFFLOAD_WRITE_INPUT {
    DWORD Size, Flags;
    DWORDLONG FileOffset, CopyLength, TransferOffset;
    BYTE Token[512];
} FSCTL_OFFLOAD_WRITE_INPUT;
typedef struct _FSCTL_OFFLOAD_WRITE_OUTPUT {
    DWORD Size, Flags;
    DWORDLONG LengthWritten;
} FSCTL_OFFLOAD_WRITE_OUTPUT;
#else
#include <winioctl.h>
#endif

#include <ntddscsi.h>

#endif
