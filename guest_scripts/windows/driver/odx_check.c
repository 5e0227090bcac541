/*
 * The checks before the first SCSI command, in classpnp's order, each with its status.
 *
 * Two differences, both because classpnp would read memory that is not the request's: an offset in the head that
 * leads out of the input, and a range whose end wraps around 64 bits, are refused (INVALID_PARAMETER,
 * NONEXISTENT_SECTOR). Not checked, as there: Size, Flags, overlaps of ranges, TokenOffset.
 */
#include "odx_core.h"

/* Whether the IOCTL asks for one of our actions; a head cut short is ours too, for it could be one. */
bool odx_is_offload(const uint8_t *buffer, uint32_t in_length)
{
    if (buffer == NULL || in_length < DSM_SIZE)
        return true;
    uint32_t action = get_le32(buffer + DSM_ACTION);
    return action == DSM_OFFLOAD_READ || action == DSM_OFFLOAD_WRITE;
}

static bool inside(uint32_t offset, uint64_t length, uint32_t end)
{
    return offset <= end && length <= end - offset;
}

static odx_status check_lengths(const odx_dsm *dsm)
{
    if (dsm->buffer == NULL || dsm->in_length < DSM_SIZE)
        return ODX_INVALID_PARAMETER;
    uint64_t least = DSM_SIZE;
    least += get_le32(dsm->buffer + DSM_PARAMETER_LENGTH);
    least += get_le32(dsm->buffer + DSM_RANGES_LENGTH);
    return dsm->in_length < least ? ODX_INVALID_PARAMETER : ODX_SUCCESS;
}

static odx_status check_range(const odx_disk *disk, const uint8_t *range)
{
    uint64_t offset = get_le64(range), length = get_le64(range + 8);
    if (offset % disk->block_size != 0 || length % disk->block_size != 0 || length == 0)
        return ODX_INVALID_PARAMETER;
    return offset > disk->bytes || length > disk->bytes - offset ? ODX_NONEXISTENT_SECTOR : ODX_SUCCESS;
}

static odx_status check_ranges(odx_disk *disk, const odx_dsm *dsm)
{
    uint32_t offset = get_le32(dsm->buffer + DSM_RANGES_OFFSET);
    uint32_t length = get_le32(dsm->buffer + DSM_RANGES_LENGTH);
    if (offset == 0 || length < RANGE_SIZE || !inside(offset, length, dsm->in_length))
        return ODX_INVALID_PARAMETER;
    if ((disk->stale || disk->block_size == 0) && odx_read_capacity(disk) != ODX_SUCCESS)
        return ODX_INVALID_PARAMETER;
    for (uint32_t index = 0; index < length / RANGE_SIZE; index++) {
        odx_status status = check_range(disk, dsm->buffer + offset + index * RANGE_SIZE);
        if (status != ODX_SUCCESS)
            return status;
    }
    return ODX_SUCCESS;
}

static odx_status check_parameters(const odx_disk *disk, const odx_dsm *dsm, bool read)
{
    uint32_t offset = get_le32(dsm->buffer + DSM_PARAMETER_OFFSET);
    uint32_t least = read ? READ_PARAMETERS_SIZE : WRITE_PARAMETERS_SIZE;
    if (get_le32(dsm->buffer + DSM_PARAMETER_LENGTH) < least || !inside(offset, least, dsm->in_length))
        return ODX_INVALID_PARAMETER;
    uint32_t lifetime = read ? get_le32(dsm->buffer + offset + READ_TIME_TO_LIVE) : 0;
    if (disk->max_lifetime > 0 && lifetime > disk->max_lifetime)
        return ODX_INVALID_PARAMETER;
    return dsm->out_length < (read ? READ_OUTPUT_SIZE : WRITE_OUTPUT_SIZE) ? ODX_BUFFER_TOO_SMALL : ODX_SUCCESS;
}

odx_status odx_dsm_check(odx_disk *disk, const odx_dsm *dsm)
{
    odx_status status = check_lengths(dsm);
    if (status != ODX_SUCCESS)
        return status;
    if (!disk->supported)
        return ODX_DEVICE_FEATURE_NOT_SUPPORTED;
    if (!dsm->level_allowed)
        return ODX_INVALID_LEVEL;
    if (!dsm->caller_allowed)
        return ODX_ACCESS_DENIED;
    status = check_ranges(disk, dsm);
    if (status != ODX_SUCCESS)
        return status;
    return check_parameters(disk, dsm, get_le32(dsm->buffer + DSM_ACTION) == DSM_OFFLOAD_READ);
}
