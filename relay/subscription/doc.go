// Package subscription keeps the subscriber and the subscriptions of each
// source as the configuration declares them: it looks for them at the platform,
// creates what is missing, changes what differs, and reports what it finds.
//
// It changes only subscriptions whose URL is one of its own, deletes nothing
// and resumes nothing. Secrets that the configuration leaves out are generated
// and kept in state.json, from which [Keeper.Secrets] knows them before
// anything is sent to the platform. Secrets that the platform answers with are
// placeholders, and never sent back.
//
// How the Management API is spoken is package akeneo's business, and how
// deliveries are received and verified that of the door and akeneo.Receiver.
package subscription
