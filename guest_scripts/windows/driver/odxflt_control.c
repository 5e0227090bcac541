/* The two IOCTLs the filter answers on a disk with a mailbox: the offload actions and the copy-offload property. */
#include "odxflt.h"

#define SCRATCH (ODX_LIST_ROOM + MAILBOX_PAGE)

static NTSTATUS run(filter *f, odx_dsm *dsm)
{
    odx_status status = odx_dsm_check(&f->disk, dsm);
    if (status != ODX_SUCCESS)
        return (NTSTATUS)status;
    dsm->scratch = ExAllocatePoolWithTag(NonPagedPoolNx, SCRATCH, ODX_POOL_TAG);
    if (dsm->scratch == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    dsm->scratch_length = SCRATCH;
    status = odx_dsm_run(&f->disk, dsm);
    ExFreePoolWithTag(dsm->scratch, ODX_POOL_TAG);
    return (NTSTATUS)status;
}

/*
 * Done in the caller's thread, which waits for the disk here: so PASSIVE_LEVEL is asked for, one level stricter
 * than classpnp. NTFS and programs are at it.
 */
static NTSTATUS offload(filter *f, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    odx_dsm dsm = {
        .buffer = irp->AssociatedIrp.SystemBuffer,
        .in_length = stack->Parameters.DeviceIoControl.InputBufferLength,
        .out_length = stack->Parameters.DeviceIoControl.OutputBufferLength,
        .caller_allowed = irp->RequestorMode == KernelMode || allow_user_mode,
        .level_allowed = KeGetCurrentIrql() == PASSIVE_LEVEL,
    };
    NTSTATUS status = run(f, &dsm);
    return filter_complete(irp, status, dsm.information);
}

static NTSTATUS property(filter *f, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    uint32_t information;
    odx_status status =
        odx_property(&f->disk, irp->AssociatedIrp.SystemBuffer, stack->Parameters.DeviceIoControl.InputBufferLength,
                     stack->Parameters.DeviceIoControl.OutputBufferLength, &information);
    return filter_complete(irp, (NTSTATUS)status, information);
}

BOOLEAN filter_control(filter *f, PIRP irp, NTSTATUS *status)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG length = stack->Parameters.DeviceIoControl.InputBufferLength;
    const uint8_t *input = irp->AssociatedIrp.SystemBuffer;
    if (!f->has_mailbox)
        return FALSE;
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES:
        if (!odx_is_offload(input, length))
            return FALSE;
        *status = offload(f, irp);
        return TRUE;
    case IOCTL_STORAGE_QUERY_PROPERTY:
        if (input == NULL || length < sizeof(STORAGE_PROPERTY_QUERY) || get_le32(input) != PROPERTY_COPY_OFFLOAD)
            return FALSE;
        *status = property(f, irp);
        return TRUE;
    default:
        return FALSE;
    }
}
