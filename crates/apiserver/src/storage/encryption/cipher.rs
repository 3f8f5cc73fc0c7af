//! The ciphers of upstream's local providers, byte for byte: what one writes the other reads.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};

/// What goes wrong inside a provider; the words do not tell why, as befits ciphers.
pub(super) type Result<T> = std::result::Result<T, &'static str>;

const BLOCK: usize = 16;
const SECRETBOX_NONCE: usize = 24;
/// The random part of a derived key, before each value.
const INFO: usize = 32;

/// One key of one provider.
pub(super) enum Cipher {
    AesCbc(Vec<u8>),
    AesGcm(LessSafeKey),
    SecretBox(Box<XSalsa20Poly1305>),
    /// AES-GCM with a key derived anew for every value (KMS v2).
    Seed(Vec<u8>),
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no random numbers")?;
    Ok(bytes)
}

fn gcm(key: &[u8]) -> Result<LessSafeKey> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128_GCM,
        24 => &aws_lc_rs::aead::AES_192_GCM,
        32 => &AES_256_GCM,
        _ => return Err("the key's length is not one of AES"),
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| "the key cannot be used")
}

fn cbc(key: &[u8]) -> Result<UnboundCipherKey> {
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &aws_lc_rs::cipher::AES_192,
        32 => &AES_256,
        _ => return Err("the key's length is not one of AES"),
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| "the key cannot be used")
}

fn seal(key: &LessSafeKey, plain: &[u8], about: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let nonce = random::<NONCE_LEN>()?;
    out.extend_from_slice(&nonce);
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut sealed)
        .map_err(|_| "encryption failed")?;
    out.extend_from_slice(&sealed);
    Ok(())
}

fn unseal(key: &LessSafeKey, kept: &[u8], about: &[u8]) -> Result<Vec<u8>> {
    let (nonce, sealed) =
        kept.split_at_checked(NONCE_LEN).ok_or("the stored data was shorter than the required size")?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| "the nonce is damaged")?;
    let mut bytes = sealed.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(about), &mut bytes);
    let length = plain.map_err(|_| "cipher: message authentication failed")?.len();
    bytes.truncate(length);
    Ok(bytes)
}

/// HKDF's second half: the seed is a key already.
fn derive(seed: &[u8], info: &[u8]) -> Result<LessSafeKey> {
    let prk = aws_lc_rs::hkdf::Prk::new_less_safe(aws_lc_rs::hkdf::HKDF_SHA256, seed);
    let info = [info];
    let mut key = [0; 32];
    prk.expand(&info, aws_lc_rs::hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| "failed to derive a key from the seed")?;
    gcm(&key)
}

impl Cipher {
    pub(super) fn aes_gcm(key: &[u8]) -> Result<Self> {
        gcm(key).map(Self::AesGcm)
    }

    pub(super) fn aes_cbc(key: Vec<u8>) -> Result<Self> {
        cbc(&key)?;
        Ok(Self::AesCbc(key))
    }

    pub(super) fn secret_box(key: &[u8]) -> Result<Self> {
        let cipher = XSalsa20Poly1305::new_from_slice(key).map_err(|_| "the key's length is not 32")?;
        Ok(Self::SecretBox(Box::new(cipher)))
    }

    /// `about` is the key in etcd: a value cannot be moved to another.
    pub(super) fn encrypt(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(plain.len() + 96);
        match self {
            Self::AesGcm(key) => seal(key, plain, about, &mut out)?,
            Self::Seed(seed) => {
                let info = random::<INFO>()?;
                out.extend_from_slice(&info);
                seal(&derive(seed, &info)?, plain, about, &mut out)?;
            }
            Self::AesCbc(key) => {
                let iv = random::<BLOCK>()?;
                let key = PaddedBlockEncryptingKey::cbc_pkcs7(cbc(key)?).map_err(|_| "encryption failed")?;
                let context = EncryptionContext::Iv128(FixedLength::from(&iv));
                let mut sealed = plain.to_vec();
                key.less_safe_encrypt(&mut sealed, context).map_err(|_| "encryption failed")?;
                out.extend_from_slice(&iv);
                out.extend_from_slice(&sealed);
            }
            Self::SecretBox(cipher) => {
                let nonce = random::<SECRETBOX_NONCE>()?;
                out.extend_from_slice(&nonce);
                let sealed = cipher.encrypt(&nonce.into(), plain).map_err(|_| "encryption failed")?;
                out.extend_from_slice(&sealed);
            }
        }
        Ok(out)
    }

    pub(super) fn decrypt(&self, kept: &[u8], about: &[u8]) -> Result<Vec<u8>> {
        const SHORT: &str = "the stored data was shorter than the required size";
        match self {
            Self::AesGcm(key) => unseal(key, kept, about),
            Self::Seed(seed) => {
                let (info, sealed) = kept.split_at_checked(INFO).ok_or(SHORT)?;
                unseal(&derive(seed, info)?, sealed, about)
            }
            Self::AesCbc(key) => {
                let (iv, sealed) = kept.split_first_chunk::<BLOCK>().ok_or(SHORT)?;
                if sealed.is_empty() || !sealed.len().is_multiple_of(BLOCK) {
                    return Err("the stored data is not a multiple of the block size");
                }
                let key = PaddedBlockDecryptingKey::cbc_pkcs7(cbc(key)?).map_err(|_| "decryption failed")?;
                let mut bytes = sealed.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                let plain = key.decrypt(&mut bytes, context).map_err(|_| "invalid padding on input")?;
                let length = plain.len();
                bytes.truncate(length);
                Ok(bytes)
            }
            Self::SecretBox(cipher) => {
                let (nonce, sealed) = kept.split_first_chunk::<SECRETBOX_NONCE>().ok_or(SHORT)?;
                cipher
                    .decrypt(&(*nonce).into(), sealed)
                    .map_err(|_| "output array was not large enough for encryption")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_comes_back_and_flipped_bits_do_not_pass() {
        let ciphers = [
            ("gcm", true, Cipher::aes_gcm(&[1; 32]).unwrap()),
            ("gcm 192", true, Cipher::aes_gcm(&[1; 24]).unwrap()),
            ("gcm 128", true, Cipher::aes_gcm(&[1; 16]).unwrap()),
            ("cbc", false, Cipher::aes_cbc(vec![2; 32]).unwrap()),
            ("secretbox", false, Cipher::secret_box(&[3; 32]).unwrap()),
            ("seed", true, Cipher::Seed(vec![4; 32])),
        ];
        for (name, bound, cipher) in &ciphers {
            for plain in [&b""[..], b"a", &[7; 100]] {
                let kept = cipher.encrypt(plain, b"/registry/secrets/a").unwrap();
                assert_ne!(
                    kept,
                    cipher.encrypt(plain, b"/registry/secrets/a").unwrap(),
                    "{name}: twice the same"
                );
                assert_eq!(cipher.decrypt(&kept, b"/registry/secrets/a").unwrap(), plain, "{name}");
                assert_eq!(cipher.decrypt(&kept, b"/registry/secrets/b").is_err(), *bound, "{name}");
                for length in 0..kept.len().min(40) {
                    assert_ne!(
                        cipher.decrypt(&kept[..length], b"/registry/secrets/a").ok().as_deref(),
                        Some(plain)
                    );
                }
                for at in (0..kept.len()).filter(|_| *bound) {
                    let mut flipped = kept.clone();
                    flipped[at] ^= 1;
                    assert!(cipher.decrypt(&flipped, b"/registry/secrets/a").is_err(), "{name} byte {at}");
                }
            }
        }
        assert!(Cipher::aes_gcm(&[1; 15]).is_err() && Cipher::secret_box(&[1; 16]).is_err());
    }
}
