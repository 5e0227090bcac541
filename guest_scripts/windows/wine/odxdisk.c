/*
 * odxdisk, a stand-in for Windows' disk driver under Wine. Nothing of it is needed, or of use, on Windows.
 *
 * It makes \\.\PhysicalDrive1 and 2 of the Linux block devices named in its registry key (Backing1, Backing2), loads
 * odxflt and puts it on top of each, as Windows' Plug and Play manager would: Wine's reads no UpperFilters. Every
 * Linux-ism is here. Wine's own file access goes through the page cache, in which a mailbox would read back what was
 * written to it; so the devices are opened by system calls with O_DIRECT (under Wine a driver's process is an
 * ordinary Linux process).
 */
#include <ntddk.h>
#include <devioctl.h>
#include <ntddstor.h>
#include <ntdddisk.h>
#include <stdint.h>

#define DISKS 2
#define BUFFER (1u << 20) /* most bytes of one read or write; aligned memory for O_DIRECT */
#define PATH_ROOM 128

enum { SYS_CLOSE = 3, SYS_LSEEK = 8, SYS_PREAD = 17, SYS_PWRITE = 18, SYS_FSYNC = 74, SYS_OPEN = 2 }; /* x86-64 */
enum { O_RDWR = 02, O_DIRECT = 040000, O_CLOEXEC = 02000000, SEEK_END = 2 };

typedef struct disk {
    long long handle; /* Linux file descriptor */
    long long size;
    UCHAR *buffer;
} disk;

static PDEVICE_OBJECT disks[DISKS];

static long long linux_call(long long number, long long one, long long two, long long three, long long four)
{
    long long result;
    register long long r10 __asm__("r10") = four;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(one), "S"(two), "d"(three), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static NTSTATUS finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS dispatch_none(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return finish(irp, STATUS_SUCCESS, 0);
}

/* One read or write; `offset` and `length` as the caller gave them. */
static NTSTATUS move(disk *d, BOOLEAN write, UCHAR *data, long long offset, ULONG length)
{
    if (offset < 0 || offset % 512 != 0 || length % 512 != 0 || length > BUFFER)
        return STATUS_INVALID_PARAMETER;
    if (offset > d->size || length > d->size - offset)
        return STATUS_NONEXISTENT_SECTOR;
    if (write)
        RtlCopyMemory(d->buffer, data, length);
    long long done = linux_call(write ? SYS_PWRITE : SYS_PREAD, d->handle, (intptr_t)d->buffer, length, offset);
    if (done != (long long)length)
        return STATUS_IO_DEVICE_ERROR;
    if (!write)
        RtlCopyMemory(data, d->buffer, length);
    return STATUS_SUCCESS;
}

static NTSTATUS dispatch_transfer(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    BOOLEAN write = stack->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? stack->Parameters.Write.Length : stack->Parameters.Read.Length;
    LARGE_INTEGER offset = write ? stack->Parameters.Write.ByteOffset : stack->Parameters.Read.ByteOffset;
    if (length == 0)
        return finish(irp, STATUS_SUCCESS, 0);
    UCHAR *data = irp->MdlAddress ? MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority) : NULL;
    NTSTATUS status =
        data ? move(device->DeviceExtension, write, data, offset.QuadPart, length) : STATUS_INSUFFICIENT_RESOURCES;
    return finish(irp, status, NT_SUCCESS(status) ? length : 0);
}

static NTSTATUS dispatch_flush(PDEVICE_OBJECT device, PIRP irp)
{
    disk *d = device->DeviceExtension;
    return finish(irp, linux_call(SYS_FSYNC, d->handle, 0, 0, 0) == 0 ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR, 0);
}

/* What the class driver answers where there is no offload; anything else it is asked here it does not know. */
static NTSTATUS dispatch_control(PDEVICE_OBJECT device, PIRP irp)
{
    disk *d = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DISK_GET_LENGTH_INFO:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof d->size)
            return finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &d->size, sizeof d->size);
        return finish(irp, STATUS_SUCCESS, sizeof d->size);
    case IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES:
    case IOCTL_STORAGE_QUERY_PROPERTY:
        return finish(irp, (NTSTATUS)0xC0000463, 0); /* STATUS_DEVICE_FEATURE_NOT_SUPPORTED */
    default:
        return finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* The path in the registry value `name`, in ASCII. */
static BOOLEAN backing(HANDLE key, PCWSTR name, char *path)
{
    UCHAR room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + 2 * PATH_ROOM];
    PKEY_VALUE_PARTIAL_INFORMATION value = (PKEY_VALUE_PARTIAL_INFORMATION)room;
    UNICODE_STRING wanted;
    ULONG length;
    RtlInitUnicodeString(&wanted, name);
    if (!NT_SUCCESS(ZwQueryValueKey(key, &wanted, KeyValuePartialInformation, room, sizeof room, &length)))
        return FALSE;
    ULONG letters = value->DataLength / 2;
    if (value->Type != REG_SZ || letters == 0 || letters > PATH_ROOM - 1)
        return FALSE;
    for (ULONG index = 0; index < letters; index++)
        path[index] = (char)((WCHAR *)value->Data)[index];
    path[letters] = 0;
    return path[0] != 0;
}

static NTSTATUS open_backing(disk *d, const char *path)
{
    d->handle = linux_call(SYS_OPEN, (intptr_t)path, O_RDWR | O_DIRECT | O_CLOEXEC, 0, 0);
    if (d->handle < 0) {
        DbgPrint("odxdisk: cannot open %s (%d)\n", path, (int)-d->handle);
        return STATUS_NO_SUCH_DEVICE;
    }
    d->size = linux_call(SYS_LSEEK, d->handle, 0, SEEK_END, 0);
    d->buffer = MmAllocateNonCachedMemory(BUFFER);
    return d->size > 0 && d->buffer != NULL ? STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

static NTSTATUS send_pnp(PDEVICE_OBJECT device, UCHAR minor)
{
    PDEVICE_OBJECT top = IoGetAttachedDevice(device);
    PIRP irp = IoAllocateIrp(top->StackSize, FALSE);
    if (irp == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    PIO_STACK_LOCATION stack = IoGetNextIrpStackLocation(irp);
    stack->MajorFunction = IRP_MJ_PNP;
    stack->MinorFunction = minor;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    NTSTATUS status = IoCallDriver(top, irp); /* this disk ends every request at once, so it is done */
    return status;
}

NTSTATUS NTAPI ObReferenceObjectByName(UNICODE_STRING *, ULONG, ACCESS_STATE *, ACCESS_MASK, POBJECT_TYPE,
                                       KPROCESSOR_MODE, void *, void **);
extern POBJECT_TYPE IoDriverObjectType;

static PDRIVER_OBJECT filter_driver(void)
{
    UNICODE_STRING key, name;
    void *driver = NULL;
    RtlInitUnicodeString(&key, L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\odxflt");
    RtlInitUnicodeString(&name, L"\\Driver\\odxflt");
    ZwLoadDriver(&key);
    ObReferenceObjectByName(&name, OBJ_CASE_INSENSITIVE, NULL, 0, NULL, KernelMode, NULL, &driver);
    return driver;
}

static NTSTATUS add_disk(PDRIVER_OBJECT driver, ULONG number, const char *path, PDRIVER_OBJECT above)
{
    WCHAR device_name[] = L"\\Device\\OdxDisk0", link_name[] = L"\\DosDevices\\PhysicalDrive0";
    UNICODE_STRING name, link;
    PDEVICE_OBJECT device;
    device_name[sizeof device_name / 2 - 2] += (WCHAR)number;
    link_name[sizeof link_name / 2 - 2] += (WCHAR)number;
    RtlInitUnicodeString(&name, device_name);
    RtlInitUnicodeString(&link, link_name);
    NTSTATUS status = IoCreateDevice(driver, sizeof(disk), &name, FILE_DEVICE_DISK, 0, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = open_backing(device->DeviceExtension, path);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags |= DO_DIRECT_IO;
    device->Flags &= ~(ULONG)DO_DEVICE_INITIALIZING;
    disks[number - 1] = device;
    IoCreateSymbolicLink(&link, &name);
    if (above != NULL && NT_SUCCESS(above->DriverExtension->AddDevice(above, device)))
        status = send_pnp(device, IRP_MN_START_DEVICE);
    return status;
}

static VOID NTAPI unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    for (ULONG index = 0; index < DISKS; index++)
        if (disks[index] != NULL) {
            send_pnp(disks[index], IRP_MN_REMOVE_DEVICE);
            linux_call(SYS_CLOSE, ((disk *)disks[index]->DeviceExtension)->handle, 0, 0, 0);
            IoDeleteDevice(disks[index]);
        }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE key;
    char path[PATH_ROOM];
    for (ULONG major = 0; major <= IRP_MJ_MAXIMUM_FUNCTION; major++)
        driver->MajorFunction[major] = dispatch_none;
    driver->MajorFunction[IRP_MJ_READ] = driver->MajorFunction[IRP_MJ_WRITE] = dispatch_transfer;
    driver->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = dispatch_flush;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = dispatch_control;
    driver->DriverUnload = unload;
    InitializeObjectAttributes(&attributes, registry_path, OBJ_CASE_INSENSITIVE, NULL, NULL);
    NTSTATUS status = ZwOpenKey(&key, KEY_READ, &attributes);
    if (!NT_SUCCESS(status))
        return status;
    PDRIVER_OBJECT above = filter_driver();
    for (ULONG number = 1; number <= DISKS; number++)
        if (backing(key, number == 1 ? L"Backing1" : L"Backing2", path))
            status = add_disk(driver, number, path, above);
    ZwClose(key);
    return disks[0] != NULL ? STATUS_SUCCESS : status;
}
