/*
 * What Windows asks a disk at its start: the list of VPD pages, 8Fh and B0h, and here the capacity too.
 *
 * One thing out of place in page 00h or 8Fh, and the disk has no offload, as with classpnp.
 */
#include <string.h>

#include "odx_core.h"

#define PAGE_SUPPORTED 0x00u
#define PAGE_COPY 0x8Fu
#define PAGE_LIMITS 0xB0u
#define DISCOVERY_RETRIES 4u

static uint32_t inquire(odx_disk *disk, uint8_t page, uint8_t *answer)
{
    odx_packet packet = {.cdb = {OP_INQUIRY, 1, page, 0, ODX_VPD_ROOM, 0}, .data_in = answer, .data_in_room = ODX_VPD_ROOM};
    memset(answer, 0, ODX_VPD_ROOM);
    return odx_execute(disk, &packet, DISCOVERY_RETRIES).status == ODX_SUCCESS ? packet.data_in_length : 0;
}

/* Whether page 00h lists a page; codes must start with 00h and ascend, else nothing in it counts. */
static bool listed(const uint8_t *page, uint32_t length, uint8_t wanted)
{
    bool found = false;
    uint32_t count = length < 4 ? 0 : page[3];
    if (count > ODX_VPD_ROOM - 4)
        count = ODX_VPD_ROOM - 4;
    for (uint32_t index = 0; index < count; index++) {
        uint8_t code = page[4 + index];
        if (index == 0 ? code != 0 : code <= page[3 + index])
            return false;
        found = found || code == wanted;
    }
    return found;
}

/* The block device ROD token limits descriptor, which must be the first (SBC-4 6.6.9); what did not come is zero. */
static void take_copy_page(odx_disk *disk, const uint8_t *page)
{
    if (get_be16(page + 2) < 36 || get_be16(page + 4) != 0 || get_be16(page + 6) != 0x20)
        return;
    disk->max_ranges = get_be16(page + 14);
    disk->max_lifetime = get_be32(page + 16);
    disk->default_lifetime = get_be32(page + 20);
    disk->max_blocks = get_be64(page + 24);
    disk->optimal_blocks = get_be64(page + 32);
    disk->supported = true;
}

static void take_limits_page(odx_disk *disk, const uint8_t *page, uint32_t length)
{
    if (length < 36 || get_be16(page + 2) < 32)
        return;
    disk->granularity = get_be16(page + 6);
    disk->max_descriptor = get_be32(page + 8);
    disk->optimal_descriptor = get_be32(page + 12);
}

odx_status odx_read_capacity(odx_disk *disk)
{
    uint8_t answer[32] = {0};
    odx_packet packet = {.cdb = {OP_SERVICE_ACTION_IN_16, ACTION_READ_CAPACITY_16},
                         .data_in = answer, .data_in_room = sizeof answer};
    packet.cdb[13] = sizeof answer;
    disk->stale = false;
    odx_status status = odx_execute(disk, &packet, DISCOVERY_RETRIES).status;
    disk->stale = status != ODX_SUCCESS;
    if (status != ODX_SUCCESS)
        return status;
    uint64_t blocks = get_be64(answer) + 1;
    uint32_t size = get_be32(answer + 8);
    if (packet.data_in_length < 12 || size < 512 || (size & (size - 1)) != 0 || blocks > UINT64_MAX / size)
        return ODX_UNSUCCESSFUL;
    disk->bytes = blocks * size;
    disk->block_size = size;
    return ODX_SUCCESS;
}

void odx_discover(odx_disk *disk, uint8_t *scratch)
{
    disk->supported = false;
    uint32_t length = inquire(disk, PAGE_SUPPORTED, scratch);
    bool copy = listed(scratch, length, PAGE_COPY), limits = listed(scratch, length, PAGE_LIMITS);
    if (!copy)
        return;
    if (limits)
        take_limits_page(disk, scratch, inquire(disk, PAGE_LIMITS, scratch));
    (void)inquire(disk, PAGE_COPY, scratch);
    take_copy_page(disk, scratch);
    (void)odx_read_capacity(disk); /* if it fails now, the first request tries again */
}
