//! CRI v1 messages, the two service traits, gRPC adapters both ways, and a fake.
