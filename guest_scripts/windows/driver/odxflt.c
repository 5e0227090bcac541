/* The filter's place in the device stack. Everything that is not for it goes to the disk untouched. */
#include "odxflt.h"

BOOLEAN allow_user_mode;

NTSTATUS filter_complete(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

NTSTATUS filter_pass(filter *f, PIRP irp)
{
    IoSkipCurrentIrpStackLocation(irp);
    return IoCallDriver(f->lower, irp);
}

static NTSTATUS dispatch(PDEVICE_OBJECT device, PIRP irp)
{
    filter *f = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->lock, irp);
    if (!NT_SUCCESS(status))
        return filter_complete(irp, status, 0);
    if (IoGetCurrentIrpStackLocation(irp)->MajorFunction != IRP_MJ_DEVICE_CONTROL ||
        !filter_control(f, irp, &status))
        status = filter_pass(f, irp);
    IoReleaseRemoveLock(&f->lock, irp);
    return status;
}

static NTSTATUS dispatch_power(PDEVICE_OBJECT device, PIRP irp)
{
    filter *f = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->lock, irp);
    PoStartNextPowerIrp(irp);
    if (!NT_SUCCESS(status))
        return filter_complete(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(f->lower, irp);
    IoReleaseRemoveLock(&f->lock, irp);
    return status;
}

static NTSTATUS NTAPI signal_done(PDEVICE_OBJECT device, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent(event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Send a request down and wait until the drivers below have done it; it is ours to complete then. */
static NTSTATUS pass_and_wait(filter *f, PIRP irp)
{
    KEVENT done;
    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, signal_done, &done, TRUE, TRUE, TRUE);
    if (IoCallDriver(f->lower, irp) == STATUS_PENDING)
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static NTSTATUS start(filter *f, PIRP irp)
{
    NTSTATUS status = pass_and_wait(f, irp);
    if (NT_SUCCESS(status)) {
        f->self->Characteristics |= f->lower->Characteristics & FILE_REMOVABLE_MEDIA;
        if (!f->has_mailbox) /* it may be a start after a stop */
            filter_find_mailbox(f);
    }
    return filter_complete(irp, status, irp->IoStatus.Information);
}

/* Paging files, hibernation: the filter is as pageable during power changes as what is below it. */
static NTSTATUS usage(filter *f, PIRP irp)
{
    NTSTATUS status = pass_and_wait(f, irp);
    if (f->lower->Flags & DO_POWER_PAGABLE)
        f->self->Flags |= DO_POWER_PAGABLE;
    else
        f->self->Flags &= ~(ULONG)DO_POWER_PAGABLE;
    return filter_complete(irp, status, irp->IoStatus.Information);
}

/* The last request: everybody else is out before the device goes. */
static NTSTATUS remove(filter *f, PIRP irp)
{
    IoReleaseRemoveLockAndWait(&f->lock, irp);
    irp->IoStatus.Status = STATUS_SUCCESS;
    NTSTATUS status = filter_pass(f, irp);
    IoDetachDevice(f->lower);
    IoDeleteDevice(f->self);
    return status;
}

static NTSTATUS dispatch_pnp(PDEVICE_OBJECT device, PIRP irp)
{
    filter *f = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->lock, irp);
    if (!NT_SUCCESS(status))
        return filter_complete(irp, status, 0);
    switch (IoGetCurrentIrpStackLocation(irp)->MinorFunction) {
    case IRP_MN_REMOVE_DEVICE:
        return remove(f, irp);
    case IRP_MN_START_DEVICE:
        status = start(f, irp);
        break;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        status = usage(f, irp);
        break;
    default:
        status = filter_pass(f, irp);
    }
    IoReleaseRemoveLock(&f->lock, irp);
    return status;
}

static NTSTATUS NTAPI add_device(PDRIVER_OBJECT driver, PDEVICE_OBJECT disk)
{
    PDEVICE_OBJECT device;
    NTSTATUS status = IoCreateDevice(driver, sizeof(filter), NULL, FILE_DEVICE_DISK, FILE_DEVICE_SECURE_OPEN, FALSE,
                                     &device);
    if (!NT_SUCCESS(status))
        return status;
    filter *f = device->DeviceExtension;
    RtlZeroMemory(f, sizeof *f);
    IoInitializeRemoveLock(&f->lock, ODX_POOL_TAG, 0, 0);
    f->self = device;
    f->lower = IoAttachDeviceToDeviceStack(device, disk);
    if (f->lower == NULL) {
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    device->Flags |= f->lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH);
    device->DeviceType = f->lower->DeviceType;
    device->AlignmentRequirement = f->lower->AlignmentRequirement;
    device->Flags &= ~(ULONG)DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* A number in the service's own key; 0 if it is not there. */
static ULONG policy(PUNICODE_STRING key_name, PCWSTR name)
{
    UCHAR room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION value = (PKEY_VALUE_PARTIAL_INFORMATION)room;
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING wanted;
    HANDLE key;
    ULONG length, found = 0;
    InitializeObjectAttributes(&attributes, key_name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes)))
        return 0;
    RtlInitUnicodeString(&wanted, name);
    if (NT_SUCCESS(ZwQueryValueKey(key, &wanted, KeyValuePartialInformation, room, sizeof room, &length)) &&
        value->Type == REG_DWORD && value->DataLength == sizeof found)
        RtlCopyMemory(&found, value->Data, sizeof found);
    ZwClose(key);
    return found;
}

static VOID NTAPI unload(PDRIVER_OBJECT driver) { UNREFERENCED_PARAMETER(driver); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    for (ULONG major = 0; major <= IRP_MJ_MAXIMUM_FUNCTION; major++)
        driver->MajorFunction[major] = dispatch;
    driver->MajorFunction[IRP_MJ_PNP] = dispatch_pnp;
    driver->MajorFunction[IRP_MJ_POWER] = dispatch_power;
    driver->DriverExtension->AddDevice = add_device;
    driver->DriverUnload = unload;
    allow_user_mode = policy(registry_path, L"AllowUserMode") != 0;
    return STATUS_SUCCESS;
}
