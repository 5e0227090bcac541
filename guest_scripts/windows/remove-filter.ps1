# Takes odxflt out again: first from the list of filters, so that no restart can miss it, then the service and the file.
#
#   powershell -ExecutionPolicy Bypass -File remove-filter.ps1
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$class = 'HKLM:\SYSTEM\CurrentControlSet\Control\Class\{4d36e967-e325-11ce-bfc1-08002be10318}'
$others = @((Get-ItemProperty -Path $class -Name UpperFilters).UpperFilters | Where-Object { $_ -ne 'odxflt' })
Set-ItemProperty -Path $class -Name UpperFilters -Type MultiString -Value $others

if (Test-Path 'HKLM:\SYSTEM\CurrentControlSet\Services\odxflt') {
    & sc.exe delete odxflt
    if ($LASTEXITCODE -ne 0) {
        throw "sc.exe could not delete the service (exit code $LASTEXITCODE)."
    }
}
$file = Join-Path $env:SystemRoot 'System32\drivers\odxflt.sys'
if (Test-Path $file) {
    Remove-Item -Path $file -Force
}
Write-Output 'Removed. Restart Windows: until then the filter stays in memory.'
