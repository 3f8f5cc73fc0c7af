//! What a CRI call fails with: a gRPC code and a message, whether or not a socket lies between.

pub use tonic::Code;

/// The error of a CRI call; prints as the kubelet prints a gRPC error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct Error {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub message: String,
}

/// The result of a CRI call.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! constructors {
    ($($name:ident $code:ident;)*) => {
        impl Error {
            /// An error of any code.
            pub fn new(code: Code, message: impl Into<String>) -> Self {
                Error { code, message: message.into() }
            }

            $(
                #[doc = concat!("An error with the code `", stringify!($code), "`.")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Error::new(Code::$code, message)
                }
            )*

            /// Whether the thing named does not exist, which stop and remove count as success.
            pub fn is_not_found(&self) -> bool {
                self.code == Code::NotFound
            }
        }
    };
}

constructors! {
    not_found NotFound;
    already_exists AlreadyExists;
    invalid_argument InvalidArgument;
    failed_precondition FailedPrecondition;
    deadline_exceeded DeadlineExceeded;
    unavailable Unavailable;
    unimplemented Unimplemented;
    resource_exhausted ResourceExhausted;
    unknown Unknown;
    internal Internal;
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error::new(status.code(), status.message())
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.code, error.message)
    }
}
