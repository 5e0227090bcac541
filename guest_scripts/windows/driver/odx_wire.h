/*
 * Numbers of the wire: NTSTATUS values, offsets in the structures of ntddstor.h, SCSI codes, and byte order.
 *
 * The core works on bytes and offsets, never on casts to structures: a buffer that comes from a program may be laid
 * out at any alignment. Sources: ntddstor.h (Windows 8 and later), ntstatus.h, SPC-4, SBC-4.
 */
#ifndef ODX_WIRE_H
#define ODX_WIRE_H

#include <stdint.h>

typedef uint32_t odx_status; /* an NTSTATUS, unsigned so that comparisons need no casts */

#define ODX_SUCCESS 0x00000000u
#define ODX_NO_DATA_DETECTED 0x80000022u
#define ODX_CLEANER_CARTRIDGE 0x80000027u
#define ODX_UNSUCCESSFUL 0xC0000001u
#define ODX_INFO_LENGTH_MISMATCH 0xC0000004u
#define ODX_INVALID_PARAMETER 0xC000000Du
#define ODX_NO_SUCH_DEVICE 0xC000000Eu
#define ODX_INVALID_DEVICE_REQUEST 0xC0000010u
#define ODX_UNRECOGNIZED_MEDIA 0xC0000014u
#define ODX_NONEXISTENT_SECTOR 0xC0000015u
#define ODX_ACCESS_DENIED 0xC0000022u
#define ODX_BUFFER_TOO_SMALL 0xC0000023u
#define ODX_DATA_OVERRUN 0xC000003Cu
#define ODX_DEVICE_DATA_ERROR 0xC000009Cu
#define ODX_INSUFFICIENT_RESOURCES 0xC000009Au
#define ODX_DEVICE_NOT_READY 0xC00000A3u
#define ODX_INVALID_LEVEL 0xC0000148u
#define ODX_INVALID_BLOCK_LENGTH 0xC0000173u
#define ODX_NO_MEDIA_IN_DEVICE 0xC0000013u
#define ODX_IO_DEVICE_ERROR 0xC0000185u
#define ODX_DEVICE_HARDWARE_ERROR 0xC0000483u
#define ODX_NOT_SUPPORTED 0xC00000BBu
#define ODX_RETRY 0xC000022Du
#define ODX_DEVICE_BUSY 0x80000011u
#define ODX_DEVICE_FEATURE_NOT_SUPPORTED 0xC0000463u
#define ODX_DEVICE_UNREACHABLE 0xC0000464u
#define ODX_INVALID_TOKEN 0xC0000465u
#define ODX_TOO_MANY_SEGMENT_DESCRIPTORS 0xC0000473u
#define ODX_INVALID_OFFSET_ALIGNMENT 0xC0000474u
#define ODX_INVALID_FIELD_IN_PARAMETER_LIST 0xC0000475u
#define ODX_OPERATION_IN_PROGRESS 0xC0000476u
#define ODX_INVALID_INITIATOR_TARGET_PATH 0xC0000477u
#define ODX_DISK_RESOURCES_EXHAUSTED 0xC0000461u
#define ODX_COPY_PROTECTION 0xC0000305u /* the first of seven */

/* DEVICE_MANAGE_DATA_SET_ATTRIBUTES */
#define DSM_SIZE 28u
#define DSM_ACTION 4u
#define DSM_PARAMETER_OFFSET 12u
#define DSM_PARAMETER_LENGTH 16u
#define DSM_RANGES_OFFSET 20u
#define DSM_RANGES_LENGTH 24u
#define DSM_OFFLOAD_READ 0x80000003u
#define DSM_OFFLOAD_WRITE 0x00000004u
#define RANGE_SIZE 16u /* DEVICE_DATA_SET_RANGE */

/* DEVICE_DSM_OFFLOAD_READ_PARAMETERS, STORAGE_OFFLOAD_READ_OUTPUT */
#define READ_PARAMETERS_SIZE 16u
#define READ_TIME_TO_LIVE 4u
#define READ_OUTPUT_SIZE 536u
#define READ_OUTPUT_LENGTH 8u
#define READ_OUTPUT_TOKEN_LENGTH 16u
#define READ_OUTPUT_TOKEN 20u
#define READ_TRUNCATED 1u

/* DEVICE_DSM_OFFLOAD_WRITE_PARAMETERS, STORAGE_OFFLOAD_WRITE_OUTPUT */
#define WRITE_PARAMETERS_SIZE 528u
#define WRITE_TOKEN_OFFSET 8u
#define WRITE_TOKEN 16u
#define WRITE_OUTPUT_SIZE 16u
#define WRITE_OUTPUT_LENGTH 8u
#define WRITE_TRUNCATED 1u
#define WRITE_TOKEN_INVALID 2u

#define TOKEN_SIZE 512u

/* STORAGE_PROPERTY_QUERY, DEVICE_COPY_OFFLOAD_DESCRIPTOR */
#define PROPERTY_QUERY_SIZE 12u
#define PROPERTY_COPY_OFFLOAD 13u
#define PROPERTY_STANDARD 0u
#define PROPERTY_EXISTS 1u
#define PROPERTY_HEADER 8u
#define COPY_OFFLOAD_SIZE 48u

/* SPC-4 and SBC-4 */
#define CDB_BYTES 16u
#define OP_INQUIRY 0x12u
#define OP_COPY_OUT 0x83u
#define OP_COPY_IN 0x84u
#define OP_SERVICE_ACTION_IN_16 0x9Eu
#define ACTION_READ_CAPACITY_16 0x10u
#define ACTION_POPULATE 0x10u
#define ACTION_WRITE_USING 0x11u
#define ACTION_RECEIVE_ROD_TOKEN 0x07u
#define SCSI_GOOD 0x00u
#define SCSI_CHECK_CONDITION 0x02u
#define SCSI_BUSY 0x08u
#define SCSI_RESERVATION_CONFLICT 0x18u
#define SCSI_TASK_SET_FULL 0x28u
#define SENSE_ROOM 32u

static inline uint16_t get_le16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }
static inline uint32_t get_le32(const uint8_t *at) { return get_le16(at) | (uint32_t)get_le16(at + 2) << 16; }
static inline uint64_t get_le64(const uint8_t *at) { return get_le32(at) | (uint64_t)get_le32(at + 4) << 32; }
static inline uint16_t get_be16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static inline uint32_t get_be32(const uint8_t *at) { return (uint32_t)get_be16(at) << 16 | get_be16(at + 2); }
static inline uint64_t get_be64(const uint8_t *at) { return (uint64_t)get_be32(at) << 32 | get_be32(at + 4); }

static inline void put_le16(uint8_t *at, uint16_t value) { at[0] = (uint8_t)value, at[1] = (uint8_t)(value >> 8); }
static inline void put_le32(uint8_t *at, uint32_t value)
{
    put_le16(at, (uint16_t)value), put_le16(at + 2, (uint16_t)(value >> 16));
}
static inline void put_le64(uint8_t *at, uint64_t value)
{
    put_le32(at, (uint32_t)value), put_le32(at + 4, (uint32_t)(value >> 32));
}
static inline void put_be16(uint8_t *at, uint16_t value) { at[0] = (uint8_t)(value >> 8), at[1] = (uint8_t)value; }
static inline void put_be32(uint8_t *at, uint32_t value)
{
    put_be16(at, (uint16_t)(value >> 16)), put_be16(at + 2, (uint16_t)value);
}
static inline void put_be64(uint8_t *at, uint64_t value)
{
    put_be32(at, (uint32_t)(value >> 32)), put_be32(at + 4, (uint32_t)value);
}

#endif
