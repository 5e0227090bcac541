# Which Windows, which disks, which drivers below them: what belongs in every report of a problem.
#
#   powershell -ExecutionPolicy Bypass -File odx-versions.ps1
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$system = Get-CimInstance -ClassName Win32_OperatingSystem
Write-Output "$($system.Caption) $($system.Version), build $($system.BuildNumber)"

$columns = @('Index', 'Model', 'FirmwareRevision', 'SerialNumber', 'Size', 'BytesPerSector', 'InterfaceType')
Get-CimInstance -ClassName Win32_DiskDrive | Sort-Object Index | Format-Table -Property $columns -AutoSize

$folder = Join-Path $env:SystemRoot 'System32\drivers'
foreach ($name in 'vioscsi', 'viostor', 'storport', 'classpnp', 'disk', 'partmgr', 'ntfs', 'odxflt') {
    $file = Join-Path $folder "$name.sys"
    if (Test-Path $file) {
        Write-Output ('{0,-10} {1}' -f $name, (Get-Item $file).VersionInfo.FileVersion)
    }
}
