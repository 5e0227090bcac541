# What this Windows sees of ODX, layer by layer, as one JSON object: `qemu-odx doctor --guest` reads it.
#
#   powershell -ExecutionPolicy Bypass -File odx-doctor.ps1 [-Volume D:] [-Source FILE -Destination FILE]
#
# Run as administrator, with odx.exe beside this script. Reads only, unless both files are named: then the source is
# copied over the destination by token.
param(
    [string] $Volume = $env:SystemDrive,
    [string] $Source = '',
    [string] $Destination = ''
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$tool = Join-Path $PSScriptRoot 'odx.exe'

function Get-RegistryValue {
    param([string] $Key, [string] $Name)
    $value = Get-ItemProperty -Path $Key -Name $Name -ErrorAction SilentlyContinue
    if ($null -eq $value) {
        return $null
    }
    return $value.$Name
}

function Get-Filter {
    # The last column, SprtFtrs, has bit 0 for offload read and bit 1 for offload write: 3 lets both through.
    $lines = & fltmc.exe instances -v $Volume
    foreach ($line in $lines) {
        if ($line -match '^(\S+)\s.*\s([0-9a-fA-F]+)\s*$') {
            @{ name = $Matches[1]; features = [Convert]::ToInt32($Matches[2], 16) }
        }
    }
}

function Get-DiskView {
    foreach ($disk in Get-CimInstance -ClassName Win32_DiskDrive | Sort-Object Index) {
        $property = $null
        if (Test-Path $tool) {
            $property = & $tool property $disk.DeviceID | ConvertFrom-Json
        }
        $parent = (Get-PnpDeviceProperty -InstanceId $disk.PNPDeviceID -KeyName 'DEVPKEY_Device_Parent').Data
        $service = (Get-PnpDeviceProperty -InstanceId $parent -KeyName 'DEVPKEY_Device_Service').Data
        @{
            node = $disk.DeviceID
            serial = "$($disk.SerialNumber)".Trim()
            driver = "$service"
            property = $property
        }
    }
}

function Get-VolumeView {
    $letter = $Volume.Substring(0, 1)
    $found = Get-Volume -DriveLetter $letter
    $partition = Get-Partition -DriveLetter $letter
    $protection = 'Off'
    if (Get-Command Get-BitLockerVolume -ErrorAction SilentlyContinue) {
        $protection = "$((Get-BitLockerVolume -MountPoint $Volume).VolumeStatus)"
    }
    @{
        name = $Volume
        file_system = "$($found.FileSystem)"
        disk = "\\.\PHYSICALDRIVE$($partition.DiskNumber)"
        bitlocker = $protection
        filters = @(Get-Filter)
    }
}

function Get-FileView {
    param([string] $Path)
    $item = Get-Item -LiteralPath $Path
    @{ path = $Path; length = $item.Length; attributes = "$($item.Attributes)" }
}

$files = @()
$copied = $null
if ($Source -ne '') {
    $files = @(Get-FileView -Path $Source)
    if ($Destination -ne '' -and (Test-Path $tool)) {
        $copied = & $tool fsctl copy $Source $Destination | ConvertFrom-Json
    }
}
$system = Get-CimInstance -ClassName Win32_OperatingSystem
@{
    system = 'windows'
    version = "$($system.Caption) $($system.Version)"
    odx_off = Get-RegistryValue -Key 'HKLM:\SYSTEM\CurrentControlSet\Control\FileSystem' -Name 'FilterSupportedFeaturesMode'
    tool = (Test-Path $tool)
    volume = Get-VolumeView
    disks = @(Get-DiskView)
    files = $files
    proof = $copied
} | ConvertTo-Json -Depth 8 -Compress
