"""The structures that Windows' offload IOCTLs and FSCTLs carry, 64-bit, little-endian.

Imports `record.py`. Each row gives offset, type and Microsoft's name; SOURCE names the header or the document that
defines the structure. `windows/` reads and fills them; a guest's driver and tool have the same ones in C.
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_odx.wire.dsm.record import BE16, BE32, I64, U16, U32, U64, Record, array, at

TOKEN_SIZE = 512
"""STORAGE_OFFLOAD_MAX_TOKEN_LENGTH (ntddstor.h)."""
TOKEN_ID_LENGTH = 504
"""STORAGE_OFFLOAD_TOKEN_ID_LENGTH (ntddstor.h)."""
TOKEN_TYPE_ZERO_DATA = 0xFFFF0001
"""STORAGE_OFFLOAD_TOKEN_TYPE_ZERO_DATA (ntddstor.h)."""


@dataclass(frozen=True, slots=True)
class DsmInput(Record):
    """The head of an IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES buffer; the class driver never looks at Size."""

    C_NAME = "DEVICE_MANAGE_DATA_SET_ATTRIBUTES"
    SIZE = 28
    ALIGN = 4
    SOURCE = "ntddstor.h"
    size: int = at(0, U32, "Size")
    action: int = at(4, U32, "Action")
    flags: int = at(8, U32, "Flags")
    parameter_offset: int = at(12, U32, "ParameterBlockOffset")
    parameter_length: int = at(16, U32, "ParameterBlockLength")
    ranges_offset: int = at(20, U32, "DataSetRangesOffset")
    ranges_length: int = at(24, U32, "DataSetRangesLength")


@dataclass(frozen=True, slots=True)
class DataSetRange(Record):
    """A range of the disk, in bytes from its start."""

    C_NAME = "DEVICE_DATA_SET_RANGE"
    SIZE = 16
    ALIGN = 8
    SOURCE = "ntddstor.h"
    offset: int = at(0, I64, "StartingOffset")
    length: int = at(8, U64, "LengthInBytes")


@dataclass(frozen=True, slots=True)
class OffloadReadParameters(Record):
    """Parameter block of an offload read; the number in TimeToLive goes into the SCSI field of seconds as it is."""

    C_NAME = "DEVICE_DSM_OFFLOAD_READ_PARAMETERS"
    SIZE = 16
    ALIGN = 4
    SOURCE = "ntddstor.h"
    flags: int = at(0, U32, "Flags")
    time_to_live: int = at(4, U32, "TimeToLive")
    reserved: bytes = at(8, array(8, U32), "Reserved")


@dataclass(frozen=True, slots=True)
class OffloadToken(Record):
    """A token; its two numbers are big-endian. The class driver copies it and never looks inside."""

    C_NAME = "STORAGE_OFFLOAD_TOKEN"
    SIZE = TOKEN_SIZE
    ALIGN = 1
    SOURCE = "ntddstor.h, MS-FSCC 2.1.11"
    token_type: int = at(0, BE32, "TokenType")
    reserved: bytes = at(4, array(2), "Reserved")
    id_length: int = at(6, BE16, "TokenIdLength")
    token: bytes = at(8, array(TOKEN_ID_LENGTH), "Token")

    @property
    def is_zero(self) -> bool:
        """IS_ZERO_TOKEN: type FFFF0001h and length 1F8h; the rest is ignored."""
        return self.token_type == TOKEN_TYPE_ZERO_DATA and self.id_length == TOKEN_ID_LENGTH


@dataclass(frozen=True, slots=True)
class OffloadWriteParameters(Record):
    """Parameter block of an offload write; TokenOffset in bytes, a remainder below a block is dropped."""

    C_NAME = "DEVICE_DSM_OFFLOAD_WRITE_PARAMETERS"
    SIZE = 528
    ALIGN = 8
    SOURCE = "ntddstor.h"
    flags: int = at(0, U32, "Flags")
    reserved: int = at(4, U32, "Reserved")
    token_offset: int = at(8, U64, "TokenOffset")
    token: bytes = at(16, array(TOKEN_SIZE), "Token")


@dataclass(frozen=True, slots=True)
class OffloadReadOutput(Record):
    """Answer to an offload read, at offset 0 of the buffer; bytes 532 to 535 are padding."""

    C_NAME = "STORAGE_OFFLOAD_READ_OUTPUT"
    SIZE = 536
    ALIGN = 8
    SOURCE = "ntddstor.h"
    flags: int = at(0, U32, "OffloadReadFlags")
    reserved: int = at(4, U32, "Reserved")
    length_protected: int = at(8, U64, "LengthProtected")
    token_length: int = at(16, U32, "TokenLength")
    token: bytes = at(20, array(TOKEN_SIZE), "Token")


@dataclass(frozen=True, slots=True)
class OffloadWriteOutput(Record):
    """Answer to an offload write, at offset 0 of the buffer."""

    C_NAME = "STORAGE_OFFLOAD_WRITE_OUTPUT"
    SIZE = 16
    ALIGN = 8
    SOURCE = "ntddstor.h"
    flags: int = at(0, U32, "OffloadWriteFlags")
    reserved: int = at(4, U32, "Reserved")
    length_copied: int = at(8, U64, "LengthCopied")


@dataclass(frozen=True, slots=True)
class DsmOutput(Record):
    """Head of the answer to other DSM actions; the offload actions have none (their HasOutput is FALSE)."""

    C_NAME = "DEVICE_MANAGE_DATA_SET_ATTRIBUTES_OUTPUT"
    SIZE = 36
    ALIGN = 4
    SOURCE = "ntddstor.h"
    size: int = at(0, U32, "Size")
    action: int = at(4, U32, "Action")
    flags: int = at(8, U32, "Flags")
    operation_status: int = at(12, U32, "OperationStatus")
    extended_error: int = at(16, U32, "ExtendedError")
    target_detailed_error: int = at(20, U32, "TargetDetailedError")
    reserved_status: int = at(24, U32, "ReservedStatus")
    output_offset: int = at(28, U32, "OutputBlockOffset")
    output_length: int = at(32, U32, "OutputBlockLength")


@dataclass(frozen=True, slots=True)
class PropertyQuery(Record):
    """Input of IOCTL_STORAGE_QUERY_PROPERTY."""

    C_NAME = "STORAGE_PROPERTY_QUERY"
    SIZE = 12
    ALIGN = 4
    SOURCE = "ntddstor.h"
    property_id: int = at(0, U32, "PropertyId")
    query_type: int = at(4, U32, "QueryType")
    additional: bytes = at(8, array(1), "AdditionalParameters")


@dataclass(frozen=True, slots=True)
class CopyOffloadDescriptor(Record):
    """StorageDeviceCopyOffloadProperty: the limits, in blocks although the documentation says bytes."""

    C_NAME = "DEVICE_COPY_OFFLOAD_DESCRIPTOR"
    SIZE = 48
    ALIGN = 8
    SOURCE = "ntddstor.h"
    version: int = at(0, U32, "Version")
    size: int = at(4, U32, "Size")
    maximum_token_lifetime: int = at(8, U32, "MaximumTokenLifetime")
    default_token_lifetime: int = at(12, U32, "DefaultTokenLifetime")
    maximum_transfer_size: int = at(16, U64, "MaximumTransferSize")
    optimal_transfer_count: int = at(24, U64, "OptimalTransferCount")
    maximum_data_descriptors: int = at(32, U32, "MaximumDataDescriptors")
    maximum_transfer_length: int = at(36, U32, "MaximumTransferLengthPerDescriptor")
    optimal_transfer_length: int = at(40, U32, "OptimalTransferLengthPerDescriptor")
    granularity: int = at(44, U16, "OptimalTransferLengthGranularity")
    reserved: bytes = at(46, array(2), "Reserved")


@dataclass(frozen=True, slots=True)
class FsctlOffloadReadInput(Record):
    """Input of FSCTL_OFFLOAD_READ on a file; time to live in milliseconds, 0 recommended."""

    C_NAME = "FSCTL_OFFLOAD_READ_INPUT"
    SIZE = 32
    ALIGN = 8
    SOURCE = "MS-FSCC 2.3.41, ntifs.h"
    size: int = at(0, U32, "Size")
    flags: int = at(4, U32, "Flags")
    time_to_live: int = at(8, U32, "TokenTimeToLive")
    reserved: int = at(12, U32, "Reserved")
    file_offset: int = at(16, U64, "FileOffset")
    copy_length: int = at(24, U64, "CopyLength")


@dataclass(frozen=True, slots=True)
class FsctlOffloadReadOutput(Record):
    """Output of FSCTL_OFFLOAD_READ."""

    C_NAME = "FSCTL_OFFLOAD_READ_OUTPUT"
    SIZE = 528
    ALIGN = 8
    SOURCE = "MS-FSCC 2.3.42, ntifs.h"
    size: int = at(0, U32, "Size")
    flags: int = at(4, U32, "Flags")
    transfer_length: int = at(8, U64, "TransferLength")
    token: bytes = at(16, array(TOKEN_SIZE), "Token")


@dataclass(frozen=True, slots=True)
class FsctlOffloadWriteInput(Record):
    """Input of FSCTL_OFFLOAD_WRITE on a file."""

    C_NAME = "FSCTL_OFFLOAD_WRITE_INPUT"
    SIZE = 544
    ALIGN = 8
    SOURCE = "MS-FSCC 2.3.43, ntifs.h"
    size: int = at(0, U32, "Size")
    flags: int = at(4, U32, "Flags")
    file_offset: int = at(8, U64, "FileOffset")
    copy_length: int = at(16, U64, "CopyLength")
    transfer_offset: int = at(24, U64, "TransferOffset")
    token: bytes = at(32, array(TOKEN_SIZE), "Token")


@dataclass(frozen=True, slots=True)
class FsctlOffloadWriteOutput(Record):
    """Output of FSCTL_OFFLOAD_WRITE."""

    C_NAME = "FSCTL_OFFLOAD_WRITE_OUTPUT"
    SIZE = 16
    ALIGN = 8
    SOURCE = "MS-FSCC 2.3.44, ntifs.h"
    size: int = at(0, U32, "Size")
    flags: int = at(4, U32, "Flags")
    length_written: int = at(8, U64, "LengthWritten")


ZERO_TOKEN = OffloadToken(TOKEN_TYPE_ZERO_DATA, bytes(2), TOKEN_ID_LENGTH).packed()
"""MAKE_ZERO_TOKEN: the token of zeros that NTFS makes by itself."""

RECORDS: tuple[type[Record], ...] = (
    DsmInput,
    DataSetRange,
    OffloadReadParameters,
    OffloadToken,
    OffloadWriteParameters,
    OffloadReadOutput,
    OffloadWriteOutput,
    DsmOutput,
    PropertyQuery,
    CopyOffloadDescriptor,
    FsctlOffloadReadInput,
    FsctlOffloadReadOutput,
    FsctlOffloadWriteInput,
    FsctlOffloadWriteOutput,
)
"""All of them."""
