# What the storage stack complained about: event 129 (a reset after a request took too long) and 153 (a request was
# sent again). An ODX copy that takes longer than the disk's time-out shows up here.
#
#   powershell -ExecutionPolicy Bypass -File odx-events.ps1 [-Hours 24]
param(
    [int] $Hours = 24
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$filter = @{ LogName = 'System'; Id = 129, 153; StartTime = (Get-Date).AddHours(-$Hours) }
$events = @(Get-WinEvent -FilterHashtable $filter -ErrorAction SilentlyContinue)
if ($events.Count -eq 0) {
    Write-Output "No event 129 or 153 in the last $Hours hours."
}
else {
    $columns = @('TimeCreated', 'Id', 'ProviderName', 'Message')
    $events | Sort-Object TimeCreated | Format-Table -Property $columns -AutoSize -Wrap
}
