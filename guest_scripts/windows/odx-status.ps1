# Is ODX on? The registry's switch, the file system filters that could block it, the disks and what they offer.
#
#   powershell -ExecutionPolicy Bypass -File odx-status.ps1 [-Volume C:]
#
# Run as administrator. odx.exe beside this script tells the copy-offload property of each disk.
param(
    [string] $Volume = $env:SystemDrive
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

function Get-OdxSwitch {
    # 0 or absent: on; 1: off for the whole machine.
    $key = 'HKLM:\SYSTEM\CurrentControlSet\Control\FileSystem'
    $value = Get-ItemProperty -Path $key -Name FilterSupportedFeaturesMode -ErrorAction SilentlyContinue
    if ($null -eq $value) {
        return 0
    }
    return $value.FilterSupportedFeaturesMode
}

function Get-BlockingFilter {
    param([string] $OnVolume)
    # The last column, SprtFtrs, has bit 0 for offload read and bit 1 for offload write: 3 lets both through.
    $lines = & fltmc.exe instances -v $OnVolume
    foreach ($line in $lines) {
        if ($line -match '^(\S+)\s.*\s([0-9a-fA-F]+)\s*$') {
            $features = [Convert]::ToInt32($Matches[2], 16)
            if (($features -band 3) -ne 3) {
                [pscustomobject]@{ Filter = $Matches[1]; SprtFtrs = $Matches[2] }
            }
        }
    }
}

function Get-DiskOffer {
    $tool = Join-Path $PSScriptRoot 'odx.exe'
    foreach ($disk in Get-CimInstance -ClassName Win32_DiskDrive) {
        $offer = 'odx.exe is not beside this script'
        if (Test-Path $tool) {
            $found = & $tool property $disk.DeviceID | ConvertFrom-Json
            $offer = 'no'
            if ($found.ok) {
                $offer = "yes, $($found.property.optimal_transfer_count) blocks at a time"
            }
        }
        [pscustomobject]@{ Disk = $disk.DeviceID; Model = $disk.Model; Offers = $offer }
    }
}

if ((Get-OdxSwitch) -eq 0) {
    Write-Output 'Registry: ODX is on (FilterSupportedFeaturesMode 0).'
}
else {
    Write-Output 'Registry: ODX is off (FilterSupportedFeaturesMode 1); set it to 0 to switch it on.'
}
$blocking = @(Get-BlockingFilter -OnVolume $Volume)
if ($blocking.Count -eq 0) {
    Write-Output "Filters: none on $Volume blocks ODX."
}
else {
    Write-Output "Filters: these on $Volume block ODX:"
    $blocking | Format-Table -AutoSize
}
Get-DiskOffer | Format-Table -AutoSize
