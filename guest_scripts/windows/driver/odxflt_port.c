/*
 * Packets by the mailbox: a write of the request to a slot, a read of the response, both by requests to the disk below.
 *
 * A command holds one slot; as many commands as there are slots run at the same time.
 */
#include "odxflt.h"

static volatile LONG list_identifiers = -1; /* of the machine: reads and writes of all disks */

static odx_status transfer(filter *f, UCHAR major, uint64_t place, void *buffer, ULONG length)
{
    KEVENT done;
    IO_STATUS_BLOCK outcome = {0};
    LARGE_INTEGER offset = {.QuadPart = (LONGLONG)place};
    KeInitializeEvent(&done, NotificationEvent, FALSE);
    PIRP irp = IoBuildSynchronousFsdRequest(major, f->lower, buffer, length, &offset, &done, &outcome);
    if (irp == NULL)
        return ODX_INSUFFICIENT_RESOURCES;
    NTSTATUS status = IoCallDriver(f->lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        status = outcome.Status;
    }
    if (!NT_SUCCESS(status))
        return (odx_status)status;
    return outcome.Information == length ? ODX_SUCCESS : ODX_IO_DEVICE_ERROR;
}

static ULONG take_slot(filter *f)
{
    KeWaitForSingleObject(&f->free_slots, Executive, KernelMode, FALSE, NULL);
    for (ULONG slot = (ULONG)f->hint;; slot++) /* the semaphore says that one is free */
        if (InterlockedCompareExchange(&f->busy[slot % f->mailbox.slots], 1, 0) == 0)
            return slot % f->mailbox.slots;
}

static void free_slot(filter *f, ULONG slot)
{
    InterlockedExchange(&f->busy[slot], 0);
    KeReleaseSemaphore(&f->free_slots, IO_NO_INCREMENT, 1, FALSE);
}

static odx_status exchange(filter *f, ULONG slot, uint8_t *page, odx_packet *packet, uint32_t *result)
{
    odx_letter letter = {.sequence = ++f->sequence[slot], .user = f->user};
    uint64_t place = f->mailbox.place + (uint64_t)slot * f->mailbox.slot_size;
    uint32_t length = odx_mailbox_request(&f->mailbox, page, letter, packet);
    if (length == 0)
        return ODX_INVALID_PARAMETER;
    odx_status status = transfer(f, IRP_MJ_WRITE, place, page, length);
    if (status != ODX_SUCCESS)
        return status;
    length = odx_mailbox_response_room(&f->mailbox, packet);
    status = transfer(f, IRP_MJ_READ, place + f->mailbox.response_offset, page, length);
    return status == ODX_SUCCESS ? odx_mailbox_response(page, length, letter, packet, result) : status;
}

/* A slot that another user holds (a driver instance of before, for one) is left to it; the next is tried. */
static odx_status execute(void *context, odx_packet *packet)
{
    filter *f = context;
    odx_status status = ODX_IO_DEVICE_ERROR;
    uint8_t *page = ExAllocatePoolWithTag(NonPagedPoolNx, MAILBOX_PAGE, ODX_POOL_TAG);
    if (page == NULL)
        return ODX_INSUFFICIENT_RESOURCES;
    for (ULONG tries = 0; tries < f->mailbox.slots; tries++) {
        uint32_t result = 0;
        ULONG slot = take_slot(f);
        status = exchange(f, slot, page, packet, &result);
        if (status == ODX_SUCCESS && result != 0)
            status = ODX_IO_DEVICE_ERROR;
        InterlockedExchange(&f->hint, (LONG)(result == MAILBOX_SLOT_TAKEN ? slot + 1 : slot));
        free_slot(f, slot);
        if (result != MAILBOX_SLOT_TAKEN)
            break;
    }
    ExFreePoolWithTag(page, ODX_POOL_TAG);
    return status;
}

static uint64_t milliseconds(void *context)
{
    LARGE_INTEGER frequency, now = KeQueryPerformanceCounter(&frequency);
    UNREFERENCED_PARAMETER(context);
    uint64_t whole = (uint64_t)(now.QuadPart / frequency.QuadPart), rest = (uint64_t)(now.QuadPart % frequency.QuadPart);
    return whole * 1000 + rest * 1000 / (uint64_t)frequency.QuadPart;
}

static void pause(void *context, uint32_t wait)
{
    LARGE_INTEGER interval = {.QuadPart = -(LONGLONG)wait * 10000}; /* negative: from now on, in 100 ns */
    UNREFERENCED_PARAMETER(context);
    KeDelayExecutionThread(KernelMode, FALSE, &interval);
}

static uint32_t list_identifier(void *context)
{
    UNREFERENCED_PARAMETER(context);
    return (uint32_t)InterlockedIncrement(&list_identifiers);
}

/* A number that no other driver instance has; it only has to differ, nobody is kept from guessing it. */
static uint64_t new_user(const filter *f)
{
    UUID uuid = {0};
    uint64_t halves[2];
    (void)ExUuidCreate(&uuid);
    RtlCopyMemory(halves, &uuid, sizeof halves);
    uint64_t user = halves[0] ^ halves[1] ^ (uint64_t)KeQueryPerformanceCounter(NULL).QuadPart ^ (uintptr_t)f;
    return user == 0 ? 1 : user;
}

/* Read the head page; if it is one, ask the disk behind it what Windows would. Else the filter stays transparent. */
void filter_find_mailbox(filter *f)
{
    uint8_t *page = ExAllocatePoolWithTag(NonPagedPoolNx, MAILBOX_HEAD_READ, ODX_POOL_TAG);
    if (page == NULL)
        return;
    BOOLEAN found = transfer(f, IRP_MJ_READ, MAILBOX_PLACE, page, MAILBOX_HEAD_READ) == ODX_SUCCESS &&
                    odx_mailbox_head(page, MAILBOX_HEAD_READ, &f->mailbox);
    if (found) {
        KeInitializeSemaphore(&f->free_slots, (LONG)f->mailbox.slots, (LONG)f->mailbox.slots);
        f->user = new_user(f);
        f->disk.port = (odx_port){
            .context = f,
            .execute = execute,
            .milliseconds = milliseconds,
            .pause = pause,
            .list_identifier = list_identifier,
            .max_transfer = f->mailbox.most_in,
        };
        odx_discover(&f->disk, page);
        f->has_mailbox = TRUE;
    }
    ExFreePoolWithTag(page, ODX_POOL_TAG);
}
