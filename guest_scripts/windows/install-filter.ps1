# Installs odxflt, the EXPERIMENTAL disk filter that has not yet been run on Windows: only on a machine, and with
# disks, that may be lost. Test signing must be on and the driver signed (driver/README.md).
#
#   powershell -ExecutionPolicy Bypass -File install-filter.ps1 [-AllowPrograms] [-Folder driver]
#
# Then restart. If Windows does not start any more: boot its recovery environment and take odxflt out of UpperFilters
# (driver/README.md tells how).
param(
    [string] $Folder = (Join-Path $PSScriptRoot 'driver'),
    [switch] $AllowPrograms
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$class = 'HKLM:\SYSTEM\CurrentControlSet\Control\Class\{4d36e967-e325-11ce-bfc1-08002be10318}'
$service = 'HKLM:\SYSTEM\CurrentControlSet\Services\odxflt'
$driver = Join-Path $Folder 'odxflt.sys'

if (-not (Test-Path $driver)) {
    throw "There is no ${driver}: build it with make, or name its folder with -Folder."
}
$signature = Get-AuthenticodeSignature -FilePath $driver
if ($signature.Status -eq 'NotSigned') {
    throw "$driver is not signed, and Windows would not load it: sign it first (driver/README.md)."
}

Copy-Item -Path $driver -Destination (Join-Path $env:SystemRoot 'System32\drivers\odxflt.sys') -Force
if (-not (Test-Path $service)) {
    & sc.exe create odxflt type= kernel start= boot error= normal binPath= 'System32\drivers\odxflt.sys'
    if ($LASTEXITCODE -ne 0) {
        throw "sc.exe could not make the service (exit code $LASTEXITCODE)."
    }
}
$policy = 0
if ($AllowPrograms) {
    $policy = 1
}
Set-ItemProperty -Path $service -Name AllowUserMode -Type DWord -Value $policy

# In front of the others, so nearest to the disk: partmgr sends what NTFS sends to the disk below itself.
$others = @((Get-ItemProperty -Path $class -Name UpperFilters).UpperFilters | Where-Object { $_ -ne 'odxflt' })
Set-ItemProperty -Path $class -Name UpperFilters -Type MultiString -Value (@('odxflt') + $others)
Write-Output 'Installed. Restart Windows to use it; remove-filter.ps1 takes it out again.'
