/* SHA-256 by Windows' own bcrypt.dll. */
#include "odx.h"

#include <bcrypt.h>

bool hash_begin(hash *sum)
{
    BCRYPT_ALG_HANDLE algorithm;
    BCRYPT_HASH_HANDLE state;
    if (BCryptOpenAlgorithmProvider(&algorithm, BCRYPT_SHA256_ALGORITHM, NULL, 0) != 0)
        return false;
    if (BCryptCreateHash(algorithm, &state, NULL, 0, NULL, 0, 0) != 0) {
        BCryptCloseAlgorithmProvider(algorithm, 0);
        return false;
    }
    sum->algorithm = algorithm;
    sum->state = state;
    return true;
}

bool hash_add(hash *sum, const void *data, DWORD length)
{
    return BCryptHashData(sum->state, (PUCHAR)data, length, 0) == 0;
}

bool hash_end(hash *sum, BYTE digest[32])
{
    bool ok = BCryptFinishHash(sum->state, digest, 32, 0) == 0;
    BCryptDestroyHash(sum->state);
    BCryptCloseAlgorithmProvider(sum->algorithm, 0);
    return ok;
}
