/*
 * The copy-offload property: whether Windows would use ODX on this disk, and with which limits.
 *
 *   odx property DISK [--exists] [--out-length N]
 */
#include "odx.h"

static void show(const DEVICE_COPY_OFFLOAD_DESCRIPTOR *found)
{
    json_open("property", '{');
    json_number("maximum_token_lifetime", found->MaximumTokenLifetime);
    json_number("default_token_lifetime", found->DefaultTokenLifetime);
    json_number("maximum_transfer_size", found->MaximumTransferSize);
    json_number("optimal_transfer_count", found->OptimalTransferCount);
    json_number("maximum_data_descriptors", found->MaximumDataDescriptors);
    json_number("maximum_transfer_length_per_descriptor", found->MaximumTransferLengthPerDescriptor);
    json_number("optimal_transfer_length_per_descriptor", found->OptimalTransferLengthPerDescriptor);
    json_number("optimal_transfer_length_granularity", found->OptimalTransferLengthGranularity);
    json_close('}');
}

int command_property(const arguments *given)
{
    if (given->count != 2)
        return EXIT_USAGE;
    HANDLE disk = open_device(given->words[1], GENERIC_READ);
    if (disk == INVALID_HANDLE_VALUE)
        return json_fail("cannot open the disk: run as administrator, and look at its number", GetLastError());
    STORAGE_PROPERTY_QUERY query = {.PropertyId = (STORAGE_PROPERTY_ID)13, /* StorageDeviceCopyOffloadProperty */
                                    .QueryType = given->exists ? PropertyExistsQuery : PropertyStandardQuery};
    DEVICE_COPY_OFFLOAD_DESCRIPTOR found = {0};
    DWORD room = given->has_out_length && given->out_length < sizeof found ? given->out_length : sizeof found;
    json_open("calls", '[');
    answer got = control(disk, IOCTL_STORAGE_QUERY_PROPERTY, "CopyOffloadProperty", &query, sizeof query, &found, room);
    json_close(']');
    if (got.ok && got.returned == sizeof found)
        show(&found);
    CloseHandle(disk);
    return json_end(exit_code(&got));
}
