/*
 * odxflt, an upper filter of disks: offloaded data transfer (ODX) on virtio-blk disks that have a mailbox window.
 *
 * EXPERIMENTAL. It has run under Wine's ntoskrnl; it has not yet been run on Windows.
 *
 * odxflt.c joins the device stack (AddDevice, Plug and Play, power, pass-through), odxflt_control.c answers the two
 * IOCTLs, odxflt_port.c carries packets by the mailbox. What they mean is in the core, odx_core.h.
 */
#ifndef ODXFLT_H
#define ODXFLT_H

#include <ntddk.h>
#include <devioctl.h>
#include <ntddstor.h>

#include "odx_core.h"

#define ODX_POOL_TAG 0x58444F71u /* "qODX" in memory */

typedef struct filter { /* device extension */
    PDEVICE_OBJECT self;
    PDEVICE_OBJECT lower;
    IO_REMOVE_LOCK lock;
    BOOLEAN has_mailbox; /* set once, before the disk is in use */
    odx_mailbox mailbox;
    odx_disk disk;
    uint64_t user;
    KSEMAPHORE free_slots;
    volatile LONG busy[MAILBOX_MOST_SLOTS];
    uint64_t sequence[MAILBOX_MOST_SLOTS]; /* each belongs to who holds its slot */
    volatile LONG hint;                    /* the slot to try first */
} filter;

extern BOOLEAN allow_user_mode; /* AllowUserMode in the service's registry key */

NTSTATUS filter_pass(filter *f, PIRP irp);
NTSTATUS filter_complete(PIRP irp, NTSTATUS status, ULONG_PTR information);

BOOLEAN filter_control(filter *f, PIRP irp, NTSTATUS *status); /* FALSE: not ours, pass it on */
void filter_find_mailbox(filter *f);

#endif
